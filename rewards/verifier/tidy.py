r"""One way to write each thing: an answer's LaTeX, plain text and Unicode spellings brought to a common form.

Pure text in, text out; nothing is evaluated and nothing that changes the value is dropped (units, percent signs and
words stay; currency signs become units). What comes out is what every rule of the judge reads.
The steps stand in their order in `TIDYING`, by stages: what wraps the answer, signs outside of LaTeX, commands, and what is common to all.
Simplification: spacing, sizes and fonts carry no meaning; a prime, a hat or a subscript does.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rewards.verifier.extract import bare
from rewards.verifier.steps import Stage, Step, rewritten, sub

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": "/", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
    "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "º": r"^\circ ", "±": r"\pm ", "∓": r"\mp ",
    "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "⅕": r"\frac{1}{5}", "⅛": r"\frac{1}{8}", "⁄": "/", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "μ": r"\mu ", "µ": r"\mu ", "Ω": r"\Omega ", "℃": r"^\circ C", "℉": r"^\circ F", "≡": r"\equiv ", "∠": r"\angle ", "∴": "",
    "π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega ",
    "，": ",", "。": ".", "！": ".", "；": ";", "：": ":", "（": "(", "）": ")", "％": "%", "’": "'", "\u00a0": " ", "\u2009": " ", "…": r"\ldots ", "＞": ">", "＜": "<", "＝": "=", "∀": r"\forall ",
    **{chr(0x245F + n): f"{n}, " for n in range(1, 21)},  # the numbers of statements, in circles
}  # fmt: skip
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n", strict=True))
_RAISED_RUN = re.compile(f"[{''.join(_RAISED)}]+")
_LOWERED = {chr(0x2080 + digit): str(digit) for digit in range(10)}
_LOWERED_RUN = re.compile(f"[{''.join(_LOWERED)}]+")
_UNICODE_RUN = re.compile("|".join(map(re.escape, _UNICODE)))
_ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
_ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|\{([^{}]*)\}|(\d+(?:\.\d+)?|\w))")

_NAMES = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac"), **dict.fromkeys(("dbinom", "tbinom"), r"\binom"),
    **dict.fromkeys(("textnormal", "textbf", "textit", "textrm", "mbox", "operatorname", "mathrm", "mathbf", "mathit", "mathsf"), r"\text"),
    **dict.fromkeys(("left", "right", "displaystyle", "textstyle", "limits", "nolimits", "mathstrut"), ""),
    **{f"{big}{side}": "" for big in ("big", "Big", "bigg", "Bigg") for side in ("", "l", "r")},
    **dict.fromkeys(("leqslant", "leq"), r"\le "), **dict.fromkeys(("geqslant", "geq"), r"\ge "), "neq": r"\ne ", "lt": "<", "gt": ">",
    "langle": "(", "rangle": ")", **dict.fromkeys(("lbrace", "lgroup"), r"\{"), **dict.fromkeys(("rbrace", "rgroup"), r"\}"), **dict.fromkeys(("lvert", "rvert", "vert", "mid"), "|"),
    "varepsilon": r"\epsilon ", "varphi": r"\phi ", "varnothing": r"\emptyset ", "R": r"\mathbb{R}", **dict.fromkeys(("smallsetminus", "backslash"), r"\setminus "), **dict.fromkeys(("lor", "vee"), r"\text{ or }"),
    **dict.fromkeys(("dots", "dotsc", "cdots", "dotsb"), r"\ldots "), **dict.fromkeys(("degree", "textdegree"), r"^\circ "), **dict.fromkeys(("approxeq", "simeq", "sim"), r"\approx "),
    "cosec": r"\csc ", "tg": r"\tan ", **dict.fromkeys(("ctg", "cotg"), r"\cot "), "arctg": r"\arctan ", **dict.fromkeys(("arcctg", "arccotg"), r"\arccot "),
    "sh": r"\sinh ", "ch": r"\cosh ", "th": r"\tanh ", "cth": r"\coth ", "lg": r"\log ",
    **dict.fromkeys(("enspace", "enskip", "thinspace", "hfill"), " "),
}  # fmt: skip
_COMMAND = re.compile(r"\\([a-zA-Z]+)")
CHANGES_CLAIM = r"(?:not|no|least|most|more|less|fewer|or|than|never|if|suppose|wrong|false|incorrect|opposite|reciprocal|inverse|negative|minus|half|twice|double|cannot|except|\w*n't)"
_LEAD_IN = rf"^(?!.*\S\s*\\text\{{[^{{}}]*(?:\bis|:)\s*\}})\\text\{{(?![^{{}}]*\b{CHANGES_CLAIM}\b)[^{{}}\d\\$]*[a-zA-Z]{{3}}[^{{}}\d\\$]*(?:\b(?:is|are|equals|makes|gets|has)|:)\s*\}}\s*(?=\S)|^\\text\{{\s*exactly\s*\}}"
_UNIT = r"\\text\{\s*([mghsLVWNJKACTFHMSD]|[a-zA-Z]{2,})\s*\}"
_SIGNS = {"!=": r"\ne ", "<=": r"\le ", ">=": r"\ge ", "...": r"\ldots ", "{:}": ":", "~": " "}
_SIGN = re.compile(r"(?<![^_]\d)(?<!^\d)" + "|".join(map(re.escape, _SIGNS)))  # 5!=120 is an equation
_INLINE = re.compile(
    r"\$\$[^$]*\$\$|(?<!\\)\$[^$\n]*(?<!\\)\$|(?<!\\)\\\((?:(?!\\\))[^\n])*\\\)|(?<!\\)\\\[(?:(?!\\\]).)*\\\]", re.DOTALL
)  # $ pairs within a line
_LONE = re.compile(r"(?<!\\)(?:\\[()\[\]]|\$)")  # an end without its other end
_TWO = ("$$", r"\(", r"\[")
_GROUPED = re.compile(r"(?<![\d.])\d{1,3}(?:[\u2062\u2063]\s*\d{3})+(?!\d)")
_CLASS_IN_WORDS = re.compile(r"(?<![\\a-z])\(mod (\w+)\)$")
_BASE_IN_WORDS = re.compile(
    r"(?<=[\dA-F])\s*(?:\\text\s*\{)?\s*\(?\s*base[\s-]+(\d+|ten|two|three|four|five|six|seven|eight|nine|sixteen)\s*\)?\s*\}?\s*$"
)
FUNCTIONS = r"(?:arc|ar)?(?:sin|cos|tan|cot|csc)h?|(?:arc|ar)sech?|sech|sec(?=\s*[(^\\]|\s[a-z]\b)|log|ln|exp"  # "5 sec" is a time
_PLAIN_FUNCTION = re.compile(
    rf"(?<![\\a-zA-Z])(sqrt|{FUNCTIONS}|cosec|pi|infinity|infty|inf"
    r"|(?<!text\{)(?:alpha|beta|gamma|delta|theta|lambda|sigma|omega|phi|rho|tau)(?=\s*(?:[^\sa-zA-Z]|$)))(?![a-zA-Z])"
)
_PLAIN_NAMES = {"infinity": r"\infty ", "inf": r"\infty ", "infty": r"\infty ", "pi": r"\pi ", "cosec": r"\csc "}
_BRACED_FUNCTION = re.compile(
    rf"(?:(?<!\d)(?<!\d )\\text\{{\s*(sec|gcd|lcm|max|min|mod)\s*\}}|\\text\{{\s*((?!sec\b)(?:{FUNCTIONS}))\s*\}})(?=\s*\S)"
)
_PART = r"(?:(\d)|\{([^{}]*)\}|([a-zA-Z])(?![a-zA-Z]{2})|(\\(?:pi|theta|alpha|beta|lambda|mu))(?![a-zA-Z]))"
_BINOM, _FRAC = (re.compile(rf"\\({name})\s*{_PART}\s*{_PART}") for name in ("binom", "frac"))
_SQRT = re.compile(r"\\sqrt\s*(\[[^\[\]]*\])?\s*(\d|[a-zA-Z](?![a-zA-Z]))")
_ST = r"(?:st|nd|rd|th)"
_ORDINAL = re.compile(
    rf"(?<=\d)(?:\s*\^?\s*\\(?:text|mathrm|textrm)\s*\{{\s*{_ST}\s*\}}|\s*\^\s*\{{\s*(?:\\(?:text|mathrm|textrm)\s*\{{\s*{_ST}\s*\}}|{_ST})\s*\}}|{_ST}(?![a-zA-Z]))"
)
_REPEATING = re.compile(r"\.(?:(\d{0,20}?)(\d)\2{1,20}|(\d{1,20}))\s*,?\s*(?:\((?:repeating|recurring)\)|(?:repeating|recurring)\b)")
_MEASURES = {  # by the names that units.py knows
    "hours": "小时|小時|時間|钟头|시간", "minutes": "分钟|分鐘|分間", "seconds": "秒钟|秒鐘|秒間|秒|초", "days": "天|日|일간|일", "weeks": "周|週間|星期|주일",
    "months": "个月|個月|ヶ月|か月|カ月|개월|月", "years": "年間|年|년간|년", "km": "公里|千米", "cm": "厘米|センチ", "mm": "毫米", "m": "米|미터",
    "kg": "公斤|千克", "g": "克|그램|グラム", "mL": "毫升", "L": "升|리터", "miles": "英里", "cm^2": "平方厘米", "m^2": "平方米", "cm^3": "立方厘米", "m^3": "立方米",
    "hectares": "公顷|公頃", "tons": "吨|噸", "dollars": "美元|美金|달러", "yuan": "元人民币|块钱|塊錢|元|圆", "jiao": "角", "yen": "円",
}  # fmt: skip
_OF_MEASURES = {word: unit for unit, words in _MEASURES.items() for word in words.split("|")}
_SAYS = "(?:です|だ|である|입니다|이다)"
_MEASURE = re.compile(rf"(?<=[\d}}$])\s*({'|'.join(sorted(_OF_MEASURES, key=len, reverse=True))}){_SAYS}?\s*\.?$")
_COUNTERS = (
    "[个個名位人只隻条條件张張本辆輛头頭匹棵朵颗顆粒块塊片支枝根双套台架座间間层層道题題页頁篇句字行列組组队隊班次回遍场場箱袋瓶杯盒碗盘排步"
    "岁歲才时時度点點种種吨つ枚羽冊개명원권대장번살쌍점회시도세号份家级級户戸艘首部节節幅封课課問曲尺寸里磅吋]|通り|세트|마리|가지|자리|학년|번째|キロ|ページ"
)
_SAYS_MORE = (  # 9个以上 is 9 or more, 9元五角 more than 9, 9次方 a power
    "万千百亿十倍折半多余几分以左右上下不非未超近约約至少内內外前后後中之零又每来無无错錯误誤否或和除一二两三四五六七八九刻角弱強强程起許许没減减亏欠吗目"
)
_COUNTER = re.compile(
    rf"(?<=[\d}}$])\s*(?:(?:(?!次[方幂]|位[数數])(?:{_COUNTERS})(?:(?![{_SAYS_MORE}])[\u4e00-\u9fff]){{0,4}}|[分对對분]){_SAYS}?|{_SAYS})\s*\.?$"
)  # what is counted: 9 of 9个, 9个鸡蛋
_HTML = re.compile(r"<(sup|sub)>([^<>]*)</\1>")
_CURRENCY = {"$": r"\text{ dollars}", "€": r"\text{ euros}", "£": r"\text{ pounds sterling}", "¥": r"\text{ yen}", "₹": r"\text{ rupees}"}
_AMOUNT = re.compile(r"([+-]?)\s*\\?([$€£¥₹])\s*([+-]?[\d.][^$€£¥₹]*)|([^$€£¥₹]*\d)\s*\\?([$€£¥₹])", re.DOTALL)


def _unescaped(text: str) -> str:
    """Text escaped once too often: outside of rows and columns, two backslashes before a name are one."""
    if r"\begin" not in text:
        return re.sub(r"\\\\(?=[a-zA-Z%$])", lambda match: "\\", text)
    runs = [len(run) for run in re.findall(r"\\+", text)]
    return text.replace("\\\\", "\\") if all(length % 2 == 0 for length in runs) else text


def _frac(match: re.Match[str]) -> str:
    above, below = (next(group for group in groups if group is not None) for groups in (match.groups()[1:5], match.groups()[5:]))
    return rf"\{match.group(1)}{{{above}}}{{{below}}}"


def _money(text: str) -> str:
    """A currency sign before or behind an amount becomes the word behind it."""
    match = _AMOUNT.fullmatch(text)
    if match is None:
        return text
    sign, before, amount, other, behind = match.groups(default="")
    amount = f"{sign}{amount}{other}".rstrip(" .,")
    return amount if re.search(r"[a-zA-Z]{3}", amount) else amount + _CURRENCY[before or behind]


def _ungrouped(text: str) -> str:
    """Text without TeX braces around the whole of it."""
    while len(text) > 1 and text[0] == "{" and text[-1] == "}" and text[-2] != "\\":
        depth = 0
        for index, char in enumerate(text):
            depth += (char == "{") - (char == "}")
            if depth == 0 and index < len(text) - 1:
                return text
        if depth:
            return text
        text = text[1:-1].strip()
    return text


def _formula(match: re.Match[str]) -> str:
    """What stands between a formula's delimiters, set off by spaces."""
    width = 2 if match.group()[:2] in _TWO else 1
    return f" {match.group()[width:-width]} "


def _is_more_than_digits(text: str) -> bool:
    return not (text.isascii() and text.isdigit())


_UNWRAPPED = (
    Step("box and delimiters", lambda text: bare(text).strip()),
    Step("backslashes written twice", _unescaped),
    sub("HTML", _HTML, lambda match: f"{'^' if match[1] == 'sup' else '_'}{{{match[2]}}}"),
    sub("endings of ordinals", _ORDINAL, ""),
    sub("repeating decimals", _REPEATING, lambda match: rf".{match[1] or ''}\overline{{{match[2] or match[3]}}}"),
    sub("US before dollars", r"^US\s*(?=\\?\$)", ""),
    sub("rupees", r"^Rs\.?\s*(\d[\d,.]*)$", r"\1\\text{ rupees}"),
    Step("code and emphasis", lambda text: text[1:-1] if re.fullmatch(r"`[^`]+`|\*[^*]+\*", text) else text),
    Step("bold", lambda text: text.replace("**", "") if text.startswith("**") and text.endswith("**") else text),
    Step("box and delimiters inside", bare),
)
_SPELLED = (
    Step("money", _money),
    sub("formulas in text", _INLINE, _formula),
    sub("lone delimiters", _LONE, lambda match: r"\$"),
    sub("quotation marks", r"(?<![\w}'])(['\"])([^'\"]*)\1(?!\w)", r"\2"),
    sub("root signs", _ROOT, lambda match: f"{_ROOTS[match[1]]}{{{next(group for group in match.groups()[1:] if group is not None)}}}"),
    sub("lowered digits", _LOWERED_RUN, lambda match: f"_{{{''.join(map(_LOWERED.__getitem__, match.group()))}}}"),
    sub("raised digits", _RAISED_RUN, lambda match: f"^{{{''.join(map(_RAISED.__getitem__, match.group()))}}}"),
    sub("Unicode", _UNICODE_RUN, lambda match: _UNICODE[match.group()]),
    sub("signs of several characters", _SIGN, lambda match: _SIGNS[match.group()]),
    sub("commas in braces", r"\{\s*,\s*\}", "\u2063"),
)
_COMMANDS = (
    sub("half delimiters", r"\\(?:left|right)\s*\.|(?<=\\operatorname)\*", ""),
    sub("letters of an alphabet", r"\\(math(?:bb|rm|bf|it|sf|cal)|overline|bar|dot|vec|hat)(?:\s+([a-zA-Z])(?![a-zA-Z])|\s*(\d))", r"\\\1{\2\3}"),  # \mathbb Z
    sub("number sets in bold", r"\\mathbf\s*\{\s*([RZNQC])\s*\}", r"\\mathbb{\1}"),
    sub("functions by other names", r"\\(?:operatorname|mathrm)\s*\{\s*(cosec|(?:arc)?(?:co?)?tg|c?th|[cs]h|lg)\s*\}", r"\\\1 "),
    sub("one name for each command", _COMMAND, lambda match: _NAMES.get(match.group(1), match.group())),
    sub("braces of words", r"\\text\s+\{", r"\\text{"),
    sub("words off letters", r"(?<=[a-zA-Z])(?<!\\text)(?=\\text\{[a-zA-Z])", " "),  # \mu\text{m} is no \mum
    sub("choose", r"\{\s*(\w+)\s*\\choose\s*(\w+)\s*\}", r"\\binom{\1}{\2}"),
    sub("colours and sizes", r"\\(?:textcolor|color)\s*\{[^{}]*\}\s*(?=\S)|\\underline(?=\s*\{)|\\(?:bf|rm|it|large|Large|huge|Huge)(?![a-zA-Z])", ""),
    sub("words below", r"_\s*\{\s*\\text\{([^{}]*)\}\s*\}", r"_{\1}"),
    sub("units over units", rf"(?<=[\d}})])(?:\s|\\,)*{_UNIT}\s*/\s*{_UNIT}", r"\\text{ \1/\2}"),
    sub("units side by side", rf"(?<=[\d}})])(?:\s|\\,)*{_UNIT}\s*\\(?:,|cdot)\s*{_UNIT}", r"\\text{ \1 \2}"),
    sub("units in lists", r"(?<=\d)\s*\\text\{\s*([a-zA-Z]{3,}(?: (?!(?:and|or)\b)[a-z]{3,}){0,3})\s*(,?)\s*(and|or)?\s*\}(?=\s*\d)", r"\\text{ \1}\2\\text{ \3 }"),
    sub("multiplicity of roots", r"(?<=\S)\s*\\text\{\s*\((?:(?:a\s+)?(?:double|triple|repeated)\s+root|repeated|multiplicity [a-z]+)\)\s*\}", ""),
    sub("units of one letter", r"(?<=[\d})])(?:\s|\\,)*\\text\{([mghsLVWNJKACTFHMSD])\}(?!\s*[\w(\\])", r"\\text{ \1}"),  # a unit, not a letter
    sub("words that are none", r"\\text\{((?:[^{}a-zA-Z]|[a-zA-Z](?![a-zA-Z]))*)\}(?<! [mghsLVWNJKACTFHMSD]\})(?<![mghsLVWNJKACTFHMSD][/ ][mghsLVWNJKACTFHMSD]\})", r"\1"),  # no word in it
    sub("lead-ins", _LEAD_IN, ""),
    sub("reasons", r"(?<=\S)\s*\\text\s*\{\s*[,(]?\s*(?:since|because)\b(?!.*\b(?:or|not|and)\b).*$", ""),  # a reason
    sub("primes", r"\^\s*(?:\{\s*\\prime\s*\}|\\prime(?![a-zA-Z]))", "'"),
    sub("degrees in braces", r"\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
    sub("percent signs", r"\\%", "%"),
    sub("ratios", r"\\!:\\!", ":"),
    sub("moduli", r"\(\s*(?:\\text\s*\{\s*mod\s*\}|\\?mod)\s*(?:\\ )*\s*(\w+)\s*\)|\\pmod\s*(\w)(?![\w{])", r"\\pmod{\1\2}"),
    sub("moduli of congruences", r"(?<=\\equiv)(.*?)(?:\\ |\s)*\(?\s*(?:\\text\s*\{\s*mod\s*\}|\\?[bp]?mod)\s*\{?(\w+)\}?\s*\)?$", r"\1\\pmod{\2}"),
    sub("functions of sets", r"\\(max|min|gcd|lcm)\s*\\\{([^{}]*)\\\}", r"\\\1(\2)"),
    sub("unit vectors", r"\\(?:vec|hat|overrightarrow|boldsymbol|bm)\s*(?:\{\s*(?:\\text\s*\{)?([ijk])\}?\s*\}|(?<=\s)([ijk])(?![a-zA-Z]))", r"\1\2"),
    sub("line ends", r"(?<!\\)(?:\\\\)*\\$|\\\\$", ""),
    sub("commas of thousands", r"(?:\\!\s*,|,\s*\\!)\s*", "\u2063"),  # a comma inside a number, told from one that separates
    sub("wide spaces", r"\\q?quad|(?<!\\)\\[!;:> ]", " "),
    sub("thin spaces", r"(?<!\\)\\,", "\u2062"),  # a thin space: inside a number like a comma, elsewhere nothing
)  # fmt: skip
_FORMED = (
    sub("measures of other languages", _MEASURE, lambda match: rf" \text{{ {_OF_MEASURES[match[1]]}}}"),
    sub("counters", _COUNTER, ""),
    Step("single spaces", lambda text: " ".join(text.split())),
    sub("powers by stars", r"\*\*(?=[\w({-])", "^"),
    sub("times ten", r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times "),
    sub("degrees by the letter o", r"(?<=\d)\s*\^\s*(?:\{\s*o\s*\}|o(?![a-zA-Z]))", r"^\\circ "),
    sub("bases in words", _BASE_IN_WORDS, r"_{\1}"),
    sub("moduli in words", _CLASS_IN_WORDS, r"\\pmod{\1}"),
    sub("exponents without braces", r"\^\s*(?:\(([^(){}]*)\)|(-\d+))", lambda match: f"^{{{match[1] or match[2]}}}"),
    sub("thousands", _GROUPED, lambda match: re.sub(r"\D", "", match.group())),
    Step("commas that are left", lambda text: text.replace("\u2063", ",")),
    Step("thin spaces that are left", lambda text: text.replace("\u2062", " ")),
    sub("functions as words", _BRACED_FUNCTION, r"\\\1\2 "),
    sub("functions without backslash", _PLAIN_FUNCTION, lambda match: _PLAIN_NAMES.get(match[1], "\\" + match[1])),
    sub("roots in brackets", r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    sub("binomials without braces", _BINOM, _frac),
    sub("fractions without braces", _FRAC, _frac),
    sub("roots without braces", _SQRT, r"\\sqrt\1{\2}"),
    Step("marks at the ends", lambda text: " ".join(text.split()).strip(" ;:").rstrip("^ ")),
    sub("full stops before brackets", r"(?<=[\w}])\.(?=\s*[\])])", ""),
    Step("equals signs in front", lambda text: text.lstrip("= ")),
    sub("full stops and commas at the end", r"(?<![\\.])[.,]+$", ""),
    Step("braces around all", lambda text: _ungrouped(text.strip())),
)
TIDYING = (
    Stage(_UNWRAPPED),
    Stage(_SPELLED, _is_more_than_digits),
    Stage(_COMMANDS, lambda text: "\\" in text),
    Stage(_FORMED, _is_more_than_digits),
)
_SQUEEZED = Stage(
    (
        sub("words laid bare", r"\\text\{([^{}]*)\}", r"\1"),
        sub("braces around one character", r"([_^])\{(\w)\}", r"\1\2"),
        sub("spaces that end a command", r"(\\[a-zA-Z]+) +(?=[a-zA-Z])", "\\1\u2062"),
        sub("spaces between digits", r"(?<=[\d.]) +(?=[\d.])", "\u2062"),  # "1 2" is not 12
        sub("other spaces", r"\s+", ""),
        Step("spaces that mean something", lambda text: text.replace("\u2062", " ")),
    )
)


@lru_cache(maxsize=4096)
def tidy(text: str) -> str:
    """The common form of an answer or a gold: no box, no delimiters, one spelling for each sign. `traced(TIDYING, text)` says how it came about."""
    return rewritten(TIDYING, text)


def compact(text: str) -> str:
    """Tidied text without spaces and without braces around single characters: for comparing letter by letter."""
    return rewritten([_SQUEEZED], tidy(text))
