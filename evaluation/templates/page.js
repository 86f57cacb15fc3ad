const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const panels = JSON.parse(document.getElementById("panels").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

async function inflated(id) {  // what stands in a script element as base64 of raw deflate, as text
  const packed = atob(document.getElementById(id).textContent), bytes = new Uint8Array(packed.length);
  for (let n = 0; n < packed.length; n++) bytes[n] = packed.charCodeAt(n);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();
}

function themed(layout) {
  const axis = { gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--line") };
  const axes = Object.fromEntries(Object.entries(layout).filter(([key]) => /^[xy]axis/.test(key)).map(([key, value]) => [key, { ...value, ...axis }]));
  const font = { ...layout.font, color: css("--soft") };
  return { ...layout, ...axes, font, hoverlabel: { ...layout.hoverlabel, bgcolor: css("--paper"), bordercolor: css("--line"), font } };
}

function shown(value) {  // on a dark page what is drawn dark is drawn lighter
  if (!dark.matches || value === null) return value;
  if (typeof value === "string" && /^#[0-9a-f]{6}$/.test(value)) {
    const parts = [1, 3, 5].map((at) => parseInt(value.slice(at, at + 2), 16));
    return parts[0] + parts[1] + parts[2] > 380 ? value : "#" + parts.map((one) => Math.round(one + 0.35 * (255 - one)).toString(16).padStart(2, "0")).join("");
  }
  if (Array.isArray(value)) return typeof value[0] === "number" ? value : value.map(shown);
  return typeof value === "object" ? Object.fromEntries(Object.entries(value).map(([key, one]) => [key, shown(one)])) : value;
}

function keys() {
  for (const key of document.querySelectorAll("figure .key, section > figcaption .key")) {
    key.dataset.c ??= key.style.getPropertyValue("--c").trim();
    key.style.setProperty("--c", shown(key.dataset.c));
  }
}

function draw(id) { Plotly.newPlot(id, shown(panels[id].data), themed(panels[id].layout), { displayModeBar: false, responsive: true }); panels[id].drawn = true; }

async function plots() {  // each when it comes into view
  const code = document.createElement("script");
  code.textContent = await inflated("plotly");
  document.head.append(code);
  const seen = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach((one) => { seen.unobserve(one.target); draw(one.target.id); }), { rootMargin: "300px" });
  Object.keys(panels).forEach((id) => seen.observe(document.getElementById(id)));
  const redraw = () => Object.keys(panels).filter((id) => panels[id].drawn).forEach((id) => Plotly.react(id, shown(panels[id].data), themed(panels[id].layout)));
  dark.addEventListener("change", keys);
  dark.addEventListener("change", redraw);
  addEventListener("beforeprint", () => document.querySelectorAll(".fold").forEach((one) => { one.open = true; }));
  addEventListener("beforeprint", () => Object.keys(panels).forEach((id) => panels[id].drawn || draw(id)));
}
keys();
plots();

for (const table of document.querySelectorAll("table.sortable")) {  // a click or Enter on a head sorts by that column
  const number = (text) => { const found = text.replace(/[,\s]/g, "").replace("−", "-").match(/^[+-]?\d+(\.\d+)?/); return found ? Number(found[0]) : null; };
  const own = (cell) => [...cell.childNodes].filter((one) => one.className !== "small").map((one) => one.textContent).join("").trim();
  const [head, ...rows] = table.rows;
  [...head.cells].forEach((cell, column) => {
    cell.tabIndex = 0;
    const sort = () => {
      const up = cell.getAttribute("aria-sort") === "descending";
      for (const other of head.cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", up ? "ascending" : "descending");
      const none = (row) => own(row.cells[column]) === "–";  // stands last, whichever way
      const value = (row) => { const text = own(row.cells[column]); return number(text) ?? text; };
      const compared = (x, y) => (typeof x === typeof y ? (x < y ? -1 : x > y ? 1 : 0) : typeof x === "number" ? -1 : 1);
      const order = (a, b) => compared(value(a), value(b)) * (up ? 1 : -1);
      rows.sort((a, b) => none(a) - none(b) || (none(a) ? 0 : order(a, b))).forEach((row) => row.parentNode.append(row));
    };
    cell.addEventListener("click", sort);
    cell.addEventListener("keydown", (event) => event.key === "Enter" && sort());
  });
}
