(() => {  // The rollout reader. Whatever a model or a data set wrote becomes text, never markup.
  const ROW = 46;  // px, height of a row of the list
  const MEASURES = {  // what numbers of tokens are, and whether they are signed or one of a few kinds
    surprise: { label: "surprise", unit: "−logprob, nats" }, advantage: { label: "advantage", unit: "after credit", signed: true },
    weight: { label: "weight", unit: "in the loss; 0: not chosen" }, entropy: { label: "entropy", unit: "nats" }, influence: { label: "influence", unit: "on right answers", signed: true },
    source: { label: "source", kinds: ["sampled", "put there by the engine", "begun with by a rule"] }, redundant: { label: "known already", kinds: ["", "thought although the answer is there"] },
  };
  const at = (id) => document.getElementById("reader-" + id);
  const root = document.getElementById("reader");
  if (!root) return;
  const list = at("list"), canvas = list.firstElementChild;
  const chips = [...root.querySelectorAll(".chip")];
  const count = (n) => n.toLocaleString("en-US");
  const short = (x) => x === null ? "–" : String(Number(x.toPrecision(3))).replace("-", "−");
  let data = null, rows = null, order = [], place = 0, hay = null, byKey = new Map();

  function element(tag, name, ...inside) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.append(...inside.filter((one) => one !== null && one !== ""));
    return made;
  }

  // ---- which rollouts

  const pressed = (name) => chips.find((chip) => chip.dataset.filter === name).getAttribute("aria-pressed") === "true";
  const key = (set, problem, sample) => set + "/" + problem + "/" + sample;

  function words() {  // what search reads, in lower case
    const problems = data.problems.problem.map((text, p) => [data.problems.problem_id[p], text, ...data.problems.golds[p]].join("\n").toLowerCase());
    return rows.set.map((_, n) => [problems[rows.problem[n]], ((rows.extracted[n] ?? "") + "\n" + (data.thinking[n] ?? "") + (data.answer[n] ?? "")).toLowerCase()]);
  }

  function chosen() {
    const asked = at("search").value.trim().toLowerCase(), set = at("set").value;
    const verdicts = ["right", "wrong", "not_judged"].filter(pressed);
    const cut = pressed("cut"), open = pressed("open"), changed = pressed("changed"), carried = pressed("carried");
    if (asked) hay ??= words();
    const found = [];
    for (let n = 0; n < rows.set.length; n++) {
      if (set !== "" && rows.set[n] !== Number(set)) continue;
      if (verdicts.length && !verdicts.includes(rows.verdict[n])) continue;
      if (cut && rows.finish[n] !== "length" || open && (rows.think_tokens[n] !== null || !data.sets[rows.set[n]].told) || changed && !rows.changed[n] || carried && !data.carried[n]) continue;
      if (asked && !hay[n].some((text) => text.includes(asked))) continue;
      found.push(n);
    }
    const tokens = (n) => rows.tokens[n] ?? 0, family = (n) => data.problems.family[rows.problem[n]] ?? "", level = (n) => data.problems.level[rows.problem[n]] ?? 0;
    const by = { longest: (a, b) => tokens(b) - tokens(a), shortest: (a, b) => tokens(a) - tokens(b), family: (a, b) => (family(a) < family(b) ? -1 : family(a) > family(b) ? 1 : level(a) - level(b)) };
    return at("sort").value ? found.sort(by[at("sort").value]) : found;
  }

  function refresh() {
    const now = order[place];
    order = chosen();
    at("count").textContent = order.length === rows.set.length ? count(order.length) + " rollouts" : count(order.length) + " of " + count(rows.set.length);
    canvas.style.height = order.length * ROW + "px";
    const kept = order.indexOf(now);
    go(kept < 0 ? 0 : kept);
  }

  // ---- the list: only rows in view exist

  function draw() {
    const from = Math.max(0, Math.floor(list.scrollTop / ROW) - 6), to = Math.min(order.length, from + Math.ceil(list.clientHeight / ROW) + 12);
    canvas.replaceChildren(...order.slice(from, to).map((n, offset) => line(n, from + offset)));
    list.setAttribute("aria-activedescendant", order.length ? "reader-row-" + place : "");
  }

  function line(n, index) {
    const problem = rows.problem[n], p = data.problems;
    const one = element("div", "row", mark(rows.set[n]), badge(n), element("span", "count", length(rows.tokens[n])), element("span", "about", (p.problem[problem] ?? "").slice(0, 160)));
    one.id = "reader-row-" + index;
    one.style.top = index * ROW + "px";
    one.setAttribute("role", "option");
    one.setAttribute("aria-posinset", index + 1);
    one.setAttribute("aria-setsize", order.length);
    one.setAttribute("aria-selected", index === place);
    one.addEventListener("click", () => go(index));
    return one;
  }

  const length = (tokens) => (tokens === null ? "–" : count(tokens));

  function mark(set) {
    const one = element("span", "key " + (data.sets[set].colour ? "" : "plain"), data.sets[set].label);
    one.style.setProperty("--c", data.sets[set].colour || "none");
    return one;
  }

  function badge(n) {
    const verdict = element("span", "badge " + rows.verdict[n], rows.verdict[n].replace("_", " "));
    return rows.finish[n] === "length" ? element("span", "", verdict, " ", element("span", "badge cut", "cut off")) : verdict;
  }

  function go(index) {
    place = Math.max(0, Math.min(index, order.length - 1));
    const top = place * ROW;
    if (top < list.scrollTop) list.scrollTop = top;
    if (top + ROW > list.scrollTop + list.clientHeight) list.scrollTop = top + ROW - list.clientHeight;
    draw();
    show();
  }

  // ---- the rollout, and the same sample under another label

  function show() {
    const n = first(order[place]);
    if (n === undefined) return at("shown").replaceChildren(element("div", "empty", "No rollout is like that."));
    const problem = rows.problem[n], p = data.problems, others = beside(n);
    const facts = [(p.golds[problem].length > 1 ? "golds " : "gold ") + p.golds[problem].join(" | "), [p.family[problem], p.level[problem] ? "level " + p.level[problem] : ""].filter(Boolean).join(" "),
      p.problem_id[problem], "sample " + rows.sample[n], data.sets[rows.set[n]].source ? "" : "step " + rows.step[n] + ", reward " + short(rows.reward[n]) + ", advantage " + short(rows.advantage[n])];
    const longest = Math.max(1, ...others.map((one) => rows.tokens[one] ?? 0));
    at("shown").replaceChildren(
      element("div", "problem", p.problem[problem] ?? ""), element("p", "facts", facts.filter(Boolean).join(" · ")),
      element("div", "grid sides " + (others.length > 1 ? "two" : "one"), ...others.map((one) => rollout(one, one === n, longest))));
    find();
  }

  const under = (set, n) => byKey.get(key(set, rows.problem[n], rows.sample[n]));
  const labels = (n) => data.sets.map((_, set) => set).filter((set) => data.sets[rows.set[n]].source && data.sets[set].source === data.sets[rows.set[n]].source && under(set, n) !== undefined);

  function first(n) {  // the row that is shown: the list's, or the same sample under the label that was chosen
    const select = at("first"), chosen = select.dataset.chosen ?? "", there = n === undefined ? [] : labels(n);
    select.replaceChildren(new Option("the list's", ""), ...there.map((set) => new Option(data.sets[set].label, set)));
    select.parentNode.hidden = there.length < 3;  // two are side by side as they are
    select.value = chosen !== "" && there.length > 2 && there.includes(Number(chosen)) ? chosen : "";
    return select.value === "" ? n : under(Number(select.value), n);
  }

  function beside(n) {  // the rows to show, the first label on the left
    const own = rows.set[n], there = labels(n).filter((set) => set !== own), select = at("beside"), wanted = select.value;
    select.replaceChildren(new Option(there.length ? "nothing" : "nothing to compare", ""), ...there.map((set) => new Option(data.sets[set].label, set)));
    const differs = (set) => rows.changed[under(set, n)], plain = there.filter((set) => !data.sets[set].at), near = plain.length ? plain : there;
    const usual = own === Math.min(own, ...there) ? near.findLast(differs) ?? near.at(-1) : there[0];
    select.value = select.dataset.chosen === "none" ? "" : there.includes(Number(wanted)) && select.dataset.chosen ? wanted : usual ?? "";
    return select.value === "" ? [n] : [n, under(Number(select.value), n)].sort((a, b) => rows.set[a] - rows.set[b]);
  }

  function rollout(n, own, longest) {
    const think = rows.think_tokens[n], tokens = rows.tokens[n], set = data.sets[rows.set[n]], said = rows.extracted[n] === null ? rows.reason[n] : "said " + rows.extracted[n];
    const sum = think === null ? (set.told ? "thinking never closed" : "thinking not counted") : count(think) + " thinking + " + length(tokens - think) + " answer";
    const bar = element("div", "bar", element("i"));
    bar.firstChild.style.width = (100 * (tokens ?? 0)) / longest + "%";
    bar.firstChild.style.background = set.colour;
    const head = element("header", "", mark(rows.set[n]), badge(n), element("span", "small said", (said ?? "").slice(0, 80)), element("span", "count", element("strong", "", length(tokens)), " " + set.unit + ": " + sum));
    const made = element("article", "rollout " + (own ? "own" : ""), head, bar, ...body(n));
    made.dataset.row = n;
    return made;
  }

  function body(n) {
    const measure = at("measure").value, carried = data.carried[n];
    if (measure && carried && carried[measure]) return coloured(carried, measure);
    const note = measure ? [element("output", "token-said", carried ? "Not measured for this rollout." : "This rollout carries no tokens here.")] : [];
    if (data.thinking[n] === null) return [...note, element("pre", "", "(Its text is left out of this page; it is in the parquet file.)")];
    return [...note, element("pre", "", data.thinking[n], element("b", "", data.answer[n]))];
  }

  // ---- tokens

  function coloured(carried, name) {
    const about = MEASURES[name], values = carried[name], end = data.scales[name], said = element("output", "token-said");
    const spans = carried.ids.map((id, t) => {
      const value = values[t], span = element("span", "token", carried.texts ? carried.texts[t] : id + " ");
      span.style.setProperty("--s", about.kinds ? (value ? 1 : 0) : Math.min(1, Math.abs(value ?? 0) / end));
      if (about.kinds ? value === 2 : value < 0) span.classList.add("minus");
      if (carried.answer !== null && t >= carried.answer) span.classList.add("answer");
      span.title = tell(t);
      return span;
    });
    function tell(t) {
      const value = values[t], number = about.kinds ? about.kinds[value] || "no" : short(value) + " (" + about.unit + ")";
      return "token " + (t + 1) + " of " + count(values.length) + ", id " + carried.ids[t] + (carried.texts ? " " + JSON.stringify(carried.texts[t]) : "") + ": " + about.label + " " + number;
    }
    let here = 0;
    const pre = element("pre", "tokens", ...spans);
    const step = (to) => {
      spans[here].classList.remove("here");
      here = Math.max(0, Math.min(to, spans.length - 1));
      spans[here].classList.add("here");
      spans[here].scrollIntoView({ block: "nearest" });
      said.textContent = tell(here);
    };
    pre.tabIndex = 0;
    pre.setAttribute("aria-label", "Tokens; left and right go from one to the next");
    pre.addEventListener("focus", () => step(here));
    pre.addEventListener("click", (event) => spans.includes(event.target) && step(spans.indexOf(event.target)));
    pre.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: spans.length - 1 }[event.key];
      if (to !== undefined) { event.preventDefault(); step(to); }
    });
    said.textContent = "A token's number: hover, click, or Tab and ← →";
    return [said, pre];
  }

  function legend() {
    const name = at("measure").value, about = MEASURES[name], one = (text, strength, minus) => {
      const made = element("span", "token" + (minus ? " minus" : ""), text);
      made.style.setProperty("--s", strength);
      return made;
    };
    if (!about) return at("legend").replaceChildren();
    if (about.kinds) return at("legend").replaceChildren(...about.kinds.map((text, kind) => text && one(text, kind ? 1 : 0, kind === 2)).filter(Boolean));
    const end = data.scales[name], steps = about.signed ? [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1] : [0, 0.25, 0.5, 0.75, 1];
    at("legend").replaceChildren(short(about.signed ? -end : 0) + " ", ...steps.map((x) => one("\u00a0\u00a0", Math.abs(x), x < 0)), " " + short(end) + " and beyond, " + about.unit);
  }

  // ---- what was searched for, marked where the browser can

  function find() {
    if (!window.Highlight) return;
    const asked = at("search").value.trim().toLowerCase(), ranges = [], walk = document.createTreeWalker(at("shown"), NodeFilter.SHOW_TEXT);
    for (let node; asked && (node = walk.nextNode());) {
      const text = node.data.toLowerCase();
      for (let from = text.indexOf(asked); from >= 0 && ranges.length < 2000; from = text.indexOf(asked, from + asked.length)) {
        const range = new Range();
        range.setStart(node, from);
        range.setEnd(node, Math.min(from + asked.length, node.data.length));
        ranges.push(range);
      }
    }
    CSS.highlights.set("found", new Highlight(...ranges));
  }

  // ---- doors

  let opening = null;
  const open = () => opening ??= unpack();  // when it is first looked at

  async function unpack() {
    data = JSON.parse(await inflated("rollouts"));
    rows = data.rows;
    rows.set.forEach((set, n) => { if (data.sets[set].source) byKey.set(key(set, rows.problem[n], rows.sample[n]), n); });
    const known = Object.keys(MEASURES).filter((name) => data.scales[name] !== undefined);
    at("measure").replaceChildren(new Option("nothing", ""), ...known.map((name) => new Option(MEASURES[name].label, name)));
    refresh();
  }

  let waiting = 0;
  at("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => open().then(refresh), 120); });
  at("set").addEventListener("change", () => open().then(refresh));
  at("sort").addEventListener("change", () => open().then(refresh).then(() => go(0)));
  for (const chip of chips) chip.addEventListener("click", () => { chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") !== "true"); open().then(refresh); });
  at("beside").addEventListener("change", (event) => { event.target.dataset.chosen = event.target.value === "" ? "none" : "one"; show(); });
  at("first").addEventListener("change", (event) => { event.target.dataset.chosen = event.target.value; show(); });
  at("measure").addEventListener("change", () => { legend(); show(); });
  list.addEventListener("scroll", () => data && requestAnimationFrame(draw));
  root.querySelector("form").addEventListener("submit", (event) => event.preventDefault());

  function all() {
    for (const chip of chips) chip.setAttribute("aria-pressed", "false");
    for (const name of ["search", "set", "sort"]) at(name).value = "";
    refresh();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName), inside = root.contains(event.target);
    if (event.key === "/" && !typing) { event.preventDefault(); root.scrollIntoView({ block: "nearest" }); at("search").focus(); return; }
    if (!data) return;
    if (event.key === "Escape" && inside) { all(); list.focus({ preventScroll: true }); return; }
    const page = Math.floor(list.clientHeight / ROW), steps = { j: 1, k: -1, ...(event.target === list && { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity }) };
    if (typing || !(event.key in steps) || !(inside || event.target === document.body)) return;
    event.preventDefault();
    go(place + steps[event.key]);
  });

  new IntersectionObserver((entries, seen) => { if (entries.some((one) => one.isIntersecting)) { seen.disconnect(); open(); } }).observe(root);
})();
