r"""Kinds of answers as people and models write them, each with its near misses: whole completions and bare answers, judged as `laconic judge` does.

Right and wrong is what a reader would say, not what a rule does; rows of KNOWN are misjudged today and named in docs/verifier.md.
"""

from __future__ import annotations

import json

import pytest

from rewards.verifier.judge_file import judge_file

# kind: (gold, right predictions, wrong predictions)
KINDS = {
    "an exclamation mark behind a marked value": [
        ("8", ["#### 8!", "Thus, we get **8**!"], ["#### 9!", "\\boxed{8!}", "Thus, we get **9**!"]),
        ("40320", ["\\boxed{8!}"], ["#### 8!"]),
    ],
    "an empty box": [
        ("7", ["\\boxed{} \\boxed{7}"], ["\\boxed{7} \\boxed{}", "\\boxed{7}, \\boxed{ }"]),
    ],
    "names in text": [
        ("Tom: 3, Ann: 4", ["\\boxed{\\text{Ann: } 4, \\text{ Tom: } 3}", "\\boxed{\\text{Ann is } 4, \\text{ Tom is } 3}"],
         ["\\boxed{\\text{Ann: } 3, \\text{ Tom: } 4}", "\\boxed{\\text{Ann is } 3, \\text{ Tom is } 4}"]),
        ("red: 3, blue: 4, green: 5", ["\\boxed{\\text{green: } 5, \\text{ blue: } 4, \\text{ red: } 3}"], ["\\boxed{\\text{green: } 3, \\text{ blue: } 4, \\text{ red: } 5}"]),
    ],
    "a base on one side": [
        ("101_2", ["\\boxed{101}"], ["\\boxed{5}", "\\boxed{101_3}"]),
        ("110111", ["\\boxed{110111_2}"], ["\\boxed{55}", "\\boxed{55_{10}}"]),
    ],
    "numerals of other languages": [
        ("12", ["\\boxed{12 \\text{ naranjas}}"], [f"\\boxed{{12 \\text{{ {word}}}}}" for word in ("millones", "docenas", "milliards", "Millionen", "douzaines")]),
        ("1", ["\\boxed{1 \\text{ apple}}"], ["\\boxed{1 \\text{ Dutzend}}", "\\boxed{1 \\text{ Prozent}}"]),
    ],
    "thousands within formulas": [
        ("1250", ["\\boxed{x = 1,250}", "\\boxed{5 \\times 250 = 1,250}", "\\boxed{n = 1,250 \\text{ apples}}", "It costs 5 x $250 = $1,250."], ["\\boxed{x = 1,25}", "\\boxed{(1,250)}", "\\boxed{x = 1,251}"]),
        ("1250\\pi", ["\\boxed{1,250\\pi}", "\\boxed{V = 1,250\\pi}"], ["\\boxed{250\\pi}"]),
        ("x \\ge 1250", ["\\boxed{x \\ge 1,250}"], ["\\boxed{x > 1,250}"]),
        ("x=1,250", ["\\boxed{x=1250}"], ["\\boxed{x=1251}"]),
        ("(1,250)", ["\\boxed{(1,250)}"], ["\\boxed{1250}", "\\boxed{(250,1)}"]),
    ],
    "arguments without braces": [
        ("k\\pi, k\\in\\mathbb Z", ["\\boxed{k\\pi, k \\in \\mathbb{Z}}"], ["\\boxed{2k\\pi, k \\in \\mathbb Z}"]),
        ("\\mathbb R \\setminus \\{1\\}", ["\\boxed{x \\ne 1}"], ["\\boxed{x \\ne 2}"]),
        ("\\sqrt[3] 2", ["\\boxed{2^{1/3}}"], ["\\boxed{\\sqrt 2}"]),
        ("\\mathrm e", ["\\boxed{e}"], ["\\boxed{\\pi}"]),
    ],
    "a domain in words": [
        ("2x+1", ["\\boxed{2x+1 \\text{ for } x \\neq 0}", "\\boxed{f(x)=2x+1 \\text{ where } x > 0}"], ["\\boxed{2x+2 \\text{ for } x \\neq 0}"]),
        ("\\frac{x}{x-1}", ["\\boxed{\\frac{x}{x-1} \\quad (x \\ne 1)}", "\\boxed{\\frac{x}{x-1} \\text{ if } x \\neq 1}"], ["\\boxed{\\frac{1}{x-1} \\quad (x \\ne 1)}"]),
        ("x", [], ["\\boxed{x \\text{ if } x > 3}"]),
    ],
    "value behind ####": [
        ("18", ["Rosa needs #### 18 stamps for this.", "That makes 6 * 3.\nShe pays #### $18 in all."], ["Rosa needs #### 81 stamps for 18 letters.", "#### 18,000 stamps"]),
        ("6.5", ["Each gets #### 6.5 kg of rice.", "13 / 2 = #### 6.5 litres. "], ["13 / 2 = #### 6.5 litres, twice that is #### 13 litres."]),
        ("40", ["He saw #### 12 birds. Then #### 40 birds came."], ["He saw #### 40 birds. Then #### 12 birds came."]),
    ],
    "thinking closed by a tag of the answer": [
        ("75", ["<think>\n3 * 25 = 75.\n</answer>\nIt is 75.", "<think>\nquarters\n<answer>\n75 cents", "<think>\nx\n</answer>\n\n75 coins"],
         ["<think>\n3 * 25 = 75, or so", "<think>\n3 * 25 = 75.\n</answer>\n57"]),
    ],
    "broken tags": [
        ("62", ["<think>\n31 * 2\n</think>\n<answer\n62\n</answer", "<think)\n31 * 2 <answer)\n62</answer>", "</think>\n<answer>62<\\answer>"], ["<think>\n31 * 2 = 62\n</think>\n<answer\n26\n>"]),
    ],
    "chains": [
        ("45", ["<answer>$120 - $75 = $45</answer>", "<answer>9 x 5 = 45</answer>", "<answer>3 x 3 = 9,\n9 x 5 = 45</answer>", "<answer>90 ÷ 2 = 45</answer>"],
         ["<answer>$120 - $45 = $75</answer>", "<answer>9 x 5 = 45,\n45 x 2 = 90</answer>"]),
        ("60", ["<answer>5 boxes x 12 pens = 60 pens</answer>"], ["<answer>60 boxes x 2 pens = 120 pens</answer>"]),
    ],
    "exclamation mark": [
        ("84", ["So the answer is 84!", "We are done: the total is 84!"], ["So the answer is 48!"]),
        ("6!", ["The answer is $6!$."], ["The answer is $5!$."]),
    ],
    "cut off": [
        ("12", ["There are 12 of them."], ["Of the remaining 12 pairs, we now remove those with a sum of $$\\frac{", "We subtract 12 and", "We have 12 points and the lines through them are", "So $a_{12} = \\sqrt{"]),
        ("9", ["<answer>\n9\nBecause 3 * 3 is 9, as there are 4 of 20.\n</answer>"], ["<answer>\n4\nI take the 9 cats as given. Another question would ask for the 9 cats."]),
    ],
    "other languages": [
        ("23", ["一共是14 + 9 = 23个，所以**23个**苹果。", "因此，小明还剩23元。", "Ответ: 23 яблока.", "إذن الناتج هو **23**."], ["因此，小明还剩32元。", "一共是14 + 9 = 23个，剩下**5个**。"]),
        ("\\frac{2}{9}", ["答案：概率是 \\frac{2}{9}。", "所以概率为 $\\frac{2}{9}$。"], ["答案：概率是 \\frac{9}{2}。"]),
    ],
    "a quoted box": [
        ("B", ["Fill in $3 + \\boxed{?} = 8$. That is 5, choice B.\n#### B"], ["Fill in $3 + \\boxed{?} = 8$.\n#### C"]),
    ],
    "sentences": [
        ("36", ["\\boxed{The area of the square is 36}", "\\boxed{The total number of ways is 36.}"], ["\\boxed{The area is less than 36}", "\\boxed{The area is not 36}", "\\boxed{The area is half of 36}"]),
        ("y=-x+7", ["The perpendicular line through the given point is y = -x + 7.", "The equation of the tangent is y = 7 - x"], ["The line perpendicular to y = -x + 7 at that point is y = x + 7."]),
        ("t^2-4t+1", ["The characteristic polynomial is t^2 - 4t + 1."], ["The characteristic polynomial is t^2 + 4t + 1."]),
    ],
    "rounded golds": [
        ("0.29", ["0.2857", "\\frac{2}{7}", "0.285714"], ["0.2", "0.28", "0.2811"]),
        ("3.6", ["3.58", "\\frac{18}{5}"], ["3.66", "3.5"]),
        ("(1.7, -0.4)", ["(1.73, -0.41)"], ["(1.78, -0.41)", "(-0.4, 1.7)"]),
        ("61.8\\%", ["\\frac{\\sqrt{5}-1}{2}"], ["\\frac{\\sqrt{5}+1}{2}", "\\frac{\\sqrt{3}-1}{2}"]),
    ],
    "nearly equal": [
        ("5", [], ["4.9999999", "5.00000001", "4.99999997"]),
        ("1.6180339", ["1.6180339887"], ["1.6180337", "1.6180341"]),
        ("z=0.12345678", [], ["z=0.12345671"]),
        ("\\sqrt{3}", ["1.7320508", "1.732051"], ["1.73205042", "1.73205"]),
        ("\\frac{2}{3}", ["0.66666667", "0.666666666"], ["0.66666672"]),
        ("6.02214076 \\cdot 10^{23}", ["6.02214076000 \\times 10^{23}"], ["6.02214096 \\cdot 10^{23}", "6.02214076 \\cdot 10^{22}"]),
    ],
    "ordinals": [
        ("12", ["12^{\\text{th}}", "the 12th", "12th"], ["13^{\\text{th}}", "12^{th} \\cdot 2"]),
        ("3rd", ["3", "3^{rd}"], ["2nd"]),
    ],
    "ratios": [
        ("5:2", ["2.5", "\\frac{5}{2}", "10:4"], ["\\frac{2}{5}", "2:5", "0.4"]),
        ("6", ["6:1"], ["1:6"]),
    ],
    "two forms": [
        ("\\frac{\\sqrt{2}}{2}\\text{ or }\\frac{1}{\\sqrt{2}}", ["\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"], ["\\sqrt{2}"]),
        ("$2$ or $7$", ["7, 2"], ["2", "7"]),
        ("30^\\circ", ["30^\\circ \\text{ or } \\frac{\\pi}{6}\\text{ radians}"], ["30^\\circ \\text{ or } 150^\\circ"]),
    ],
    "units": [
        ("2\\text{ kPa}", ["2000\\text{ N m^{-2}}"], ["2000\\text{ N m^{2}}", "2\\text{ N m^{-2}}"]),
    ],
    "plain functions": [
        ("2\\cos x-\\frac{1}{3}\\sin(2x)", ["2 cos x - 1/3 sin(2x)", "2*cos(x) - (1/3)*sin(2*x)"], ["2 cos x + 1/3 sin(2x)"]),
        ("\\ln(a+b)-\\ln c", ["ln(a + b) - ln c", "ln(a+b) - ln(c)"], ["ln(a - b) - ln c"]),
        ("2", [], ["ln x + 3 ln(z^2 - y) - ln(w + 2)"]),
        ("\\lambda^2+1", ["lambda^2 + 1"], ["lambda^2 - 1"]),
    ],
    "functions without brackets": [
        ("7\\ln 3", ["\\ln 3\\cdot 7", "7 \\cdot \\ln 3"], ["\\ln 21"]),
        ("\\cos x\\cdot\\sin x", ["\\frac{\\sin 2x}{2}", "\\sin x\\times\\cos x"], ["\\cos(x\\sin x)", "\\sin 2x"]),
        ("3", ["\\log_2 7\\cdot\\log_7 8"], ["\\log_2 7\\cdot\\log_7 9"]),
        ("\\ln\\frac{1}{2}\\cdot 4", ["-4\\ln 2"], ["4\\ln 2", "\\ln 2"]),
        ("x\\sqrt{\\ln x}", ["\\sqrt{\\ln x}\\cdot x"], ["\\sqrt{x\\ln x}"]),
    ],
    "reciprocal and hyperbolic functions": [
        ("\\frac{3}{\\cosh(2x)}", ["3\\operatorname{sech}(2x)", "3 sech(2x)"], ["3\\operatorname{csch}(2x)"]),
        ("\\frac{\\cosh x}{\\sinh x}", ["\\coth x", "\\operatorname{coth} x"], ["\\tanh x"]),
        ("\\frac{1}{\\sinh^2 x}", ["\\operatorname{csch}^2 x", "\\coth^2(x)-1"], ["\\operatorname{csch} x"]),
        ("\\arcsin\\frac{1}{x}", ["\\operatorname{arccsc}(x)"], ["\\operatorname{arcsec}(x)"]),
        ("\\ln(x+\\sqrt{x^2+1})", ["\\operatorname{arsinh}(x)", "\\sinh^{-1}(x)"], ["\\operatorname{arcosh}(x)"]),
    ],
    "named values": [
        ("12,7", ["Mean = 12, Median = 7", "Median = 7, Mean = 12", "Ada: 12, Ben: 7"], ["Mean = 12, Median = 8", "Ada: 12, Ben: 70"]),
        ("4,9", ["4 \\text{ small boxes and } 9 \\text{ large boxes}"], ["4 \\text{ small boxes and } 8 \\text{ large boxes}"]),
    ],
    "two signs": [
        ("(2,5),(2,-5),(-2,5),(-2,-5)", ["(\\pm 2, \\pm 5)"], ["(\\pm 2, 5)"]),
        ("(2,5),(-2,-5)", [], ["(\\pm 2, \\pm 5)"]),
        ("(2,-5),(-2,5)", ["(\\pm 2, \\mp 5)"], ["(\\pm 2, \\pm 5)"]),
    ],
    "parameters": [
        ("x=\\frac{\\pi}{3}+2k\\pi", ["\\frac{\\pi}{3}+2n\\pi", "x=\\frac{\\pi}{3}+2\\pi m"], ["\\frac{\\pi}{3}+n\\pi", "\\frac{\\pi}{3}"]),
        ("(x,y)=(2+3t,1-t)", ["(2+3k, 1-k) \\text{ for some integer } k"], ["(2+3k, 1+k) \\text{ for some integer } k"]),
        ("n^2+1", [], ["m^2+1"]),
    ],
    "qualifiers": [
        ("m \\le 8", ["\\boxed{\\text{all integers } m \\text{ with } m \\le 8}", "\\boxed{\\text{every } m \\le 8}", "\\boxed{m\\le 8, m\\in\\mathbb{Z}}", "\\boxed{m \\le 8 \\text{ where } m \\text{ is an integer}}", "\\boxed{\\text{all } m \\text{ such that } m \\le 8}"],
         ["\\boxed{\\text{all integers } m \\text{ with } m < 8}", "\\boxed{\\text{all integers } m \\text{ except } m \\le 8}", "\\boxed{m \\le 8 \\text{ with } m > 2}"]),
        ("11", ["\\boxed{11 \\text{ where } k \\text{ is a constant}}", "\\boxed{11, \\text{ where } k \\text{ is real}}"], ["\\boxed{11 \\text{ with remainder } 3}", "\\boxed{11k \\text{ where } k \\text{ is a constant}}", "\\boxed{12 \\text{ where } k \\text{ is a constant}}"]),
        ("f(x)=3x", ["\\boxed{f(x)=3x \\text{ for all } x\\in\\mathbb{R}_{>0}}", "\\boxed{f(x) = 3x \\text{ for all real } x}", "\\boxed{f(x)=3x, x\\in\\mathbb{R}}", "\\boxed{f(x)=3x, \\text{ for every integer } x}"], ["\\boxed{f(x)=4x \\text{ for all } x\\in\\mathbb{R}_{>0}}", "\\boxed{f(x)=3x, x\\ne 0 \\text{ or } f(x)=0}"]),
        ("$f(x)=0$, $f(x)=x^2$", ["f(x) = 0 \\text{ for all } x, \\text{ and } f(x)=x^2 \\text{ for all } x"], ["f(x) = 0 \\text{ for all } x"]),
        ("x^2 \\text{ for all integers } x", ["x^2"], ["x^2 \\text{ for all positive } x", "x^3"]),
    ],
    "equations": [
        ("z=4i-w", ["w+z=4i"], ["w-z=4i"]),
        ("5iu=v", ["u=\\frac{v}{5i}", "u=-\\frac{iv}{5}"], ["u=5iv"]),
        ("ab=20", ["\\frac{20}{a}", "a=\\frac{20}{b}"], ["20a"]),
        ("v-1=(u+2)^2", ["u^2+4u+5"], ["u^2+4u+3"]),
        ("y=\\frac{2x}{x-1}", ["\\frac{2}{y}+\\frac{1}{x}=1"], ["\\frac{2}{y}-\\frac{1}{x}=1"]),
        ("g(3)=10", ["5g(3)-4=46"], ["5g(3)-4=50"]),
        ("f(x)-\\sin x+c=0", ["f(x)=\\sin x-c"], ["f(x)=\\sin x+c"]),
    ],
    "sets": [
        ("a<1\\text{ or }a=5", ["(-\\infty,1)\\cup\\{5\\}"], ["(-\\infty,1)", "(-\\infty,1]\\cup\\{5\\}"]),
        ("\\{x|x>2\\}-\\{6\\}", ["(2,6)\\cup(6,\\infty)"], ["(2,\\infty)"]),
        ("[-2,\\sqrt{7}.)", ["[-2,\\sqrt{7})"], ["(-2,\\sqrt{7})"]),
        ("[x+1\\ne 0]", ["x\\ne -1"], ["x\\ne 1"]),
        ("\\begin{bmatrix}3&0\\\\-1&4\\end{bmatrix}", ["\\boxed{[3, 0; -1, 4]}"], ["\\boxed{[3, -1; 0, 4]}", "\\boxed{[3, 0, -1, 4]}"]),
    ],
    "words": [
        ("No", ["No", "No, they are not.", "No, because 2 is prime.", "No; it fails."], ["No data available.", "No final answer", "No result could be found", "None"]),
        ("\\text{infinitely many}", ["\\infty", "infinitely many solutions"], ["0", "two"]),
    ],
    "signs": [
        ("②③", ["2, 3", "3 and 2"], ["2, 4"]),
        ("y<sup>3</sup>-1", ["y^3-1"], ["y^2-1"]),
        ("∀x＜2, f(x)≥0", ["\\forall x<2, f(x)\\ge 0"], ["\\forall x<2, f(x)\\le 0"]),
        ("120^", ["120", "120^\\circ"], ["12^\\circ"]),
        ("\\frac{1}{6}", ["0.1666 repeating", "0.1(6 repeating)"], ["0.16 repeating"]),
    ],
    "a value behind ####": [
        ('15', ['In total there are #### 15.', 'So Kim has #### 15 left!'], ['#### 51 left', 'So Kim, who had #### 15 of 30, gave #### 5 away.']),
        ('$2.75', ['Each costs #### 2.75 dollars.'], ['Each costs #### 2.57 dollars.']),
        ('1200', ['The farm makes #### $1,200 per week.'], ['The farm makes #### $1,200 thousand per week.']),
    ],
    "thinking left open": [
        ('8', ['<think>\n2*4\n</answer>\n\nThe answer is 8.'], ['<think>\nmy answer will go between <answer> tags; 2*4 = 8 maybe']),
    ],
    "tags of other shapes": [
        ('19', ['<think>hm</think>\n<answer> 19 <answer>', '<answer:19>', '</think>\n[answer]19[/answer]'], ['<think>hm</think>\n<answer> 91 <answer>']),
    ],
    "sums of money": [
        ('63', ['<answer>7 * 9 = $63</answer>', '<answer>\\$100 - \\$37 = \\$63</answer>', '<answer>100 - 37 = 63 dollars</answer>', '<answer>$7 x 9 = $63.</answer>'], ['<answer>63 + 7 = 70</answer>', '<answer>$63 x 2 = $126</answer>']),
    ],
    "cries": [
        ('31', ['The answer is 31!!', 'Therefore she has 31 pens!'], ['Therefore she has 13 pens!']),
    ],
    "texts that stop": [
        ('14', ['The sum is 14'], ['The first 14 terms give \\[ S_{14} = \\frac{14', 'We know that 14 divides n, so', 'Let $k=14$. Then $$2k+']),
    ],
    "six more languages": [
        ('26', ['Por lo tanto, la respuesta es 26.', 'Die Antwort ist 26.', 'よって、答えは26です。', '따라서 정답은 26입니다.', 'Réponse : 26', 'Итого 26 рублей.'], ['Por lo tanto, la respuesta es 62.', 'よって、答えは62です。']),
    ],
    "statements of formulas": [
        ('\\frac{5}{6}', ['\\boxed{The probability is \\frac{5}{6}}', '\\boxed{\\text{The probability equals }\\frac{5}{6}}'], ['\\boxed{The probability is at most \\frac{5}{6}}']),
        ('x^2+y^2=25', ['The equation of the circle is x^2 + y^2 = 25.', '\\boxed{The equation of the circle is x^2+y^2=25}'], ['The equation of the circle is x^2 + y^2 = 5.']),
        ('3n+1', ['The general term is 3n + 1.', 'Hence the n-th term equals 3n+1'], ['The general term is 3n - 1.']),
    ],
    "more rounded golds": [
        ('12.4', ['12.38', '\\frac{62}{5}', '12.4142'], ['12.46', '12.3']),
        ('2.24', ['\\sqrt{5}'], ['\\sqrt{6}']),
    ],
    "nearly equal decimals": [
        ('2', [], ['1.9999999', '2.0000001', '1.999999']),
        ('0.5', ['\\frac12'], ['0.49999998', '0.50000004']),
        ('3.14159265', ['\\pi'], ['3.14159262']),
        ('\\frac{1}{7}', ['0.142857142857', '0.1428571'], ['0.14285717', '0.1428575']),
    ],
    "ordinal numbers": [
        ('5', ['5^{th}', '5\\text{th}', 'fifth'], ['4th']),
    ],
    "ratios and quotients": [
        ('3:4', ['\\frac34', '0.75', '6:8', '3 to 4'], ['4:3', '\\frac43']),
    ],
    "one value in two forms": [
        ('\\frac{4}{5}', ['\\frac45 \\text{ or } 0.8', '0.8 \\text{ or } 80\\%'], ['\\frac45 \\text{ or } \\frac54']),
    ],
    "units with powers": [
        ('4\\text{ J}', ['4\\text{ kg m}^2\\text{ s}^{-2}', '4\\text{ N m}'], ['4\\text{ kg m s}^{-2}']),
    ],
    "formulas in plain text": [
        ('e^{-x}\\sin(2x)', ['e^(-x) sin(2x)', 'exp(-x)*sin(2x)'], ['e^(-x) cos(2x)']),
        ('\\alpha+2\\beta', ['alpha + 2 beta', 'alpha + 2*beta'], ['alpha - 2*beta']),
    ],
    "functions before a dot": [
        ('x\\ln 2', ['\\ln 2 \\cdot x'], ['\\ln(2x)']),
        ('-2\\cos\\theta\\sin\\theta', ['-\\sin\\theta\\cdot 2\\cos\\theta', '-\\sin 2\\theta'], ['\\sin 2\\theta']),
    ],
    "hyperbolic identities": [
        ('2\\coth(x)', ['\\frac{2}{\\tanh x}', '\\frac{2\\cosh x}{\\sinh x}'], ['2\\tanh x']),
        ('\\operatorname{sech}^2(x)', ['1-\\tanh^2 x', '\\frac{1}{\\cosh^2(x)}'], ['1+\\tanh^2 x']),
        ('\\frac{\\pi}{3}', ['\\operatorname{arcsec}(2)', '\\arccos\\frac12'], ['\\operatorname{arccsc}(2)']),
    ],
    "labels and values": [
        ('20,35', ['Alice: 20, Bob: 35', '\\text{Alice: }20,\\text{ Bob: }35', 'Length = 35, Width = 20'], ['Alice: 20, Bob: 53']),
    ],
    "signs of a point": [
        ('(1,2),(1,-2),(-1,2),(-1,-2)', ['(\\pm1,\\pm2)'], ['(\\pm1,2)']),
    ],
    "counters": [
        ('\\frac{k\\pi}{2}', ['\\frac{n\\pi}{2}', '\\frac{\\pi m}{2}, m\\in\\mathbb{Z}'], ['\\frac{n\\pi}{3}']),
    ],
    "conditions that say nothing": [
        ('x > 2', ['\\boxed{\\text{all real numbers } x \\text{ such that } x>2}', '\\boxed{\\text{all } x > 2}', '\\boxed{x>2, x\\in\\mathbb{R}}'], ['\\boxed{\\text{all } x \\ge 2}', '\\boxed{\\text{no } x > 2}']),
        ('2x+C', ['\\boxed{2x + C \\text{, where } C \\text{ is a constant}}', '\\boxed{2x+C, \\text{ where } C \\text{ is an arbitrary constant}}'], ['\\boxed{3x + C \\text{, where } C \\text{ is a constant}}']),
        ('p^2', ['\\boxed{p^2 \\text{ for any prime } p}', '\\boxed{p^2 \\text{ with } p \\text{ prime}}'], ['\\boxed{p^3 \\text{ for any prime } p}']),
    ],
    "equations turned round": [
        ('pq=6', ['q=\\frac6p', '\\frac{6}{p}'], ['\\frac{p}{6}']),
        ('2y=x+1', ['y=\\frac{x+1}{2}', 'x=2y-1', 'x-2y+1=0'], ['x=2y+1']),
        ('\\frac1a+\\frac1b=1', ['a+b=ab', 'b=\\frac{a}{a-1}'], ['a+b=2ab']),
        ('iz=w', ['z=-iw', 'z=\\frac{w}{i}'], ['z=iw']),
    ],
    "sets and columns": [
        ('x\\ge 4\\text{ or }x=0', ['\\{0\\}\\cup[4,\\infty)'], ['[4,\\infty)', '\\{0\\}\\cup(4,\\infty)']),
        ('\\begin{pmatrix}1\\\\2\\end{pmatrix}', ['\\boxed{[1; 2]}'], ['\\boxed{[2; 1]}']),
    ],
    "no and no noun": [
        ('No', ['No.', 'no', 'No, since it is odd.'], ['No solution found', 'No integer works', 'No clue']),
    ],
    "circles and tags": [
        ('①③④', ['①, ③, ④', '1,3,4'], ['①③']),
        ('10<sup>6</sup>', ['1000000', '10^6'], ['106']),
    ],
    "repeating decimals": [
        ('\\frac{1}{11}', ['0.09 repeating', '0.\\overline{09}'], ['0.9 repeating']),
    ],
    "digits inside formulas": [
        ("y=5x-4", ["\\boxed{y=5.0x-4.00}", "\\boxed{5x-4}"], ["\\boxed{5.0000001x-4}", "\\boxed{y=4.9999999x-4}", "\\boxed{y=5x-4.000001}"]),
        ("t^3+2", [], ["\\boxed{t^3+2+0.00000001t}", "\\boxed{t^{3.0000001}+2}", "\\boxed{t^3+1.9999999}"]),
        ("x\\ge 7", ["\\boxed{x\\ge 7.0}"], ["\\boxed{x\\ge 7.0000001}", "\\boxed{x\\ge 6.9999999}"]),
        ("\\sqrt{5}", ["\\boxed{2.2360680}"], ["\\boxed{\\sqrt{5.0000001}}", "\\boxed{5^{0.5000001}}"]),
        ("4x-y=9", ["\\boxed{2x-0.5y=4.5}"], ["\\boxed{4.0000001x-y=9}"]),
        ("\\frac{t}{4}", ["\\boxed{0.25t}"], ["\\boxed{0.2500001t}"]),
    ],
    "what stands behind a number": [
        ("9", ["\\boxed{9 \\text{ cousins}}", "\\boxed{9\\text{ m}}", "\\boxed{9 \\text{ people}}", "\\boxed{9 \\text{ blue socks}}", "\\boxed{9 \\text{ left}}", "\\boxed{9 in total}", "\\boxed{9 \\text{ years old}}", "\\boxed{9 \\text{ km per day}}"],
         ["\\boxed{9 \\text{ at least}}", "\\boxed{9 \\text{ tops, minimum}}", "\\boxed{9 \\text{ max}}", "\\boxed{9 \\text{ too few}}", "\\boxed{9 \\text{ onwards}}", "\\boxed{9 \\text{ cousins at most}}", "\\boxed{9 \\text{ sau zece}}", "\\boxed{9 \\text{ inclusive}}", "\\boxed{9 \\text{ shy}}", "\\boxed{9 \\text{ in the best case}}", "\\boxed{9 \\text{ for now}}"]),
        ("1", ["\\boxed{1 \\text{ way}}"], ["\\boxed{1 \\text{ at most}}"]),
        ("5\\sqrt{2}", ["\\boxed{5\\sqrt{2} \\text{ metres}}"], ["\\boxed{5\\sqrt{2} \\text{ at most}}"]),
    ],
    "kinds of numbers": [
        ("m \\ge 8", ["\\boxed{\\text{all whole numbers } m \\ge 8}"], ["\\boxed{\\text{all even integers } m \\ge 8}", "\\boxed{\\text{every prime } m \\ge 8}", "\\boxed{m \\ge 8 \\text{ with } m \\text{ odd}}", "\\boxed{\\text{all composite } m \\ge 8}"]),
        ("t<4", ["\\boxed{\\text{all real } t < 4}"], ["\\boxed{\\text{all rational } t < 4}", "\\boxed{t < 4, t \\in \\mathbb{Q}}"]),
        ("No", ["\\boxed{\\text{No. It is not.}}"], ["No. 2 in the queue is Mia.", "\\boxed{\\text{No. 4}}"]),
    ],
    "marks of thinking": [
        ("58", ["<longcat_think>\\boxed{1}</longcat_think>\\boxed{58}", "<|think_start|>\\boxed{1}<|think_end|>\\boxed{58}", "<Thinking>\\boxed{1}</THINKING>\\boxed{58}", "analysisTry \\boxed{1}assistantfinalIt is \\boxed{58}", "<unused94>thought\nhm<unused95>\\boxed{58}"],
         ["<Think>\\boxed{58}", "< thinking >\\boxed{58}", "<|thought|>\\boxed{58}", "<scratchpad>\\boxed{58}", "analysisTry \\boxed{58}", "&lt;thinking&gt;\\boxed{58}", "Sure. <think>\\boxed{58}", "<think>so <answer>58</answer>, or", "<details type=\"reasoning\">\\boxed{58}"]),
        ("58", ["The mark `<think>` opens it. \\boxed{58}", "We say <think> before it. \\boxed{58}", "\\boxed{58}. It ends in `</think>`.", "Here is my thought process: 29 * 2.\n\\boxed{58}", "<think>\n29 * 2\n<answer>58</answer>"], ["Here is my thought process: 29 * 2 = \\boxed{58} and then"]),
    ],
    "operations behind a value": [
        ("35", ["Hence the total is 35.", "He jumped 35 times in all.", "The total is 30 + 5 = 35 eggs.", "So it is 30 + 5."], ["Hence the total is 35 + 2.", "Thus the area is 35 \\pi", "The cost is 35 minus the rebate.", "The volume is 35 times the base.", "It comes to 35^2.", "So far we have 35 plus"]),
        ("6", ["The answer is $2+4=6$ cats.", "The answer is \\(2 \\cdot 3 = 6\\) in total."], ["The answer is $6+4=10$ cats.", "Thus $n = 6$.\n\nNow we check: $6^2"]),
        ("24", ["There are 4! ways.", "The number of orders is 4!."], ["There are 24! ways.", "The number of orders is 24!."]),
    ],
    "taken back and left open": [
        ("64", ["The answer is 63. Wait, it's 64.", "The answer is 64. It took 6 doublings."], ["The answer is 64. Wait, it's 63.", "The answer is 64. That is wrong. It should be 63.", "The answer is 64.\n\nActually, 63.", "The answer is 64 (or 46)."]),
        ("20", ["Eve sold 20 of her 90 cards.", "Eve sold 20 cards instead of 90."], ["Eve sold 90 of her 20 cards.", "Eve sold 9 cards rather than 20.", "It could be 20 or 30.", "It lies between 20 and 30.", "It lies between 10 and 20.", "Eve sold 20 cards or more.", "He saw from 10 to 20 birds."]),
        ("11", [], ["Es ist nicht 11.", "Ce n'est pas 11.", "No es 11.", "Это не 11.", "答案不是11。", "不到11。"]),
        ("90", ["They rode 90 miles in 4 hours.", "Nia sold 90 tickets in the 3 weeks."], ["They rode 4 miles in 90 hours."]),
        ("\\frac{2}{5}", ["The chance is $\\frac{2}{5}$, or 40%."], ["The chance is $\\frac{2}{5}$, or 60%."]),
    ],
    "money in sentences": [
        ("33", ["The coat is $50. With a rebate of $17, Lea pays $33.", "Lea pays 2 x $25 = $50, but gets $17 back, so she spends $33.", "Since he gave $17 of $50, Jon has $33 left."], ["The coat is $33. With a rebate of $17, Lea pays $16."]),
    ],
    "counted in other languages": [
        ('9', ['\\boxed{9个}', '\\boxed{9}', '\\boxed{9个鸡蛋}', '\\boxed{9只鸡}', '\\boxed{9元}', '\\boxed{9小时}', '\\boxed{9人です}', '\\boxed{9개입니다}', '\\boxed{9です}', '\\boxed{9种}', '\\boxed{9枚}', '\\boxed{9个整数}', '\\boxed{9个正整数}', '\\boxed{9个小朋友}', '\\boxed{9分}', '\\boxed{9千克}', '\\boxed{9千米}', '\\boxed{9平方厘米}', '\\boxed{9对}', '\\boxed{9公顷}', '\\boxed{9か月}', '\\boxed{9개월}', '\\boxed{9시}', '\\boxed{9人である}', '\\boxed{9분}', '\\boxed{9도}', '\\boxed{9미터}', '\\boxed{9세}', '\\boxed{9달러}', '\\boxed{9년간}', '\\boxed{9학년}', '\\boxed{9ページ}', '\\boxed{9センチ}', '\\boxed{9号}', '\\boxed{9份}', '\\boxed{9部}', '\\boxed{9立方厘米}', '\\boxed{9元人民币}', '\\boxed{9點}', '\\boxed{9 个鸡蛋}'], ['\\boxed{9以上}', '\\boxed{9以下}', '\\boxed{9未満}', '\\boxed{9以外}', '\\boxed{9不对}', '\\boxed{9错误}', '\\boxed{9不等于}', '\\boxed{9左右}', '\\boxed{9个以上}', '\\boxed{9个左右}', '\\boxed{9人以内}', '\\boxed{9個半}', '\\boxed{9万}', '\\boxed{9分之一}', '\\boxed{9년이상}', '\\boxed{9超}', '\\boxed{9元五角}', '\\boxed{9元五}', '\\boxed{9米二}', '\\boxed{9块二}', '\\boxed{9点三刻}', '\\boxed{9人弱}', '\\boxed{9個強}', '\\boxed{9时许}', '\\boxed{9元起}', '\\boxed{9元减}', '\\boxed{9个没有}', '\\boxed{9元亏损}', '\\boxed{9次方}', '\\boxed{9次幂}', '\\boxed{9位数}', '\\boxed{9回目}', '\\boxed{9人目}', '\\boxed{9 이상}', '\\boxed{9 미만}', '\\boxed{9 아님}']),
        ('\\frac{1}{2}', ['\\boxed{\\frac{1}{2}个}', '\\boxed{\\frac{1}{2}}'], ['\\boxed{\\frac{1}{2}以上}']),
        ('9小时', ['\\boxed{9小时}', '\\boxed{540分钟}', '\\boxed{9}'], ['\\boxed{9分钟}', '\\boxed{9秒}']),
        ('3米', ['\\boxed{3米}', '\\boxed{300厘米}', '\\boxed{3}'], ['\\boxed{3厘米}', '\\boxed{3公里}']),
        ('5元', ['\\boxed{5元}', '\\boxed{50角}'], ['\\boxed{5角}', '\\boxed{5美元}']),
        ('3月', ['\\boxed{3月}'], ['\\boxed{3日}']),
    ],
    "short sentences of other languages": [
        ("14", ["答案是14。", "答：14。", "答案：14个", "最终答案：$14$。", "La réponse est 14.", "La risposta è 14.", "Lösung: 14", "Svaret är 14.", "Tulos on 14.", "Élodie a 14 billes."], ["答案是41。", "Lösung: 41", "答案：14万"]),
        ("D", ["故选：D。", "La bonne réponse est D.", "I choose D."], ["故选：A。", "I would not choose D."]),
    ],
    "domains and where it is attained": [
        ("16", ["\\boxed{16 \\text{ (attained at } a=4)}", "\\boxed{16, \\text{ reached when } a=b=4}", "\\boxed{16 \\text{ (equality iff } a=b)}"], ["\\boxed{17 \\text{ (attained at } a=16)}", "\\boxed{16 \\text{ (attained at } a=4) \\text{ or } 17}"]),
        ("16 \\text{ (attained at } a=4)", ["\\boxed{16}"], ["\\boxed{16 \\text{ (attained at } a=5)}"]),
        ("g(x)=5x", ["\\boxed{g(x)=5x, \\ \\forall x \\in \\mathbb{R}}", "\\boxed{g(x)=5x, \\ x > 0}"], ["\\boxed{g(x)=4x \\ \\forall x \\in \\mathbb{R}}"]),
        ("\\frac{2}{t}", ["\\boxed{\\frac{2}{t}, \\ t \\ne 0}"], ["\\boxed{\\frac{t}{2}, \\ t \\ne 0}"]),
        ("a=2, b>1", [], ["\\boxed{a=2}"]),
        ("x\\le 6", ["\\boxed{x \\le 6 \\text{ for } x \\text{ real}}"], ["\\boxed{x \\le 6 \\text{ for } x \\text{ rational}}", "\\boxed{x \\le 6, x \\ne 1}"]),
    ],
    "parameters with other names": [
        ("f(x)=ax^2+b", ["\\boxed{f(x)=cx^2+d}", "\\boxed{f(x)=kx^2+m}"], ["\\boxed{f(x)=cx^2+c}", "\\boxed{f(x)=cx+d}", "\\boxed{f(x)=cx^2}"]),
        ("y=C_1e^{3x}+C_2e^{-x}", ["\\boxed{y=Ae^{3x}+Be^{-x}}", "\\boxed{y=Ae^{-x}+Be^{3x}}"], ["\\boxed{y=Ae^{3x}+Ae^{-x}}", "\\boxed{y=Ae^{3x}+Be^{x}}"]),
        ("(2-t, 4t)", ["\\boxed{(2-s, 4s)}"], ["\\boxed{(2+s, 4s)}", "\\boxed{(4s, 2-s)}"]),
        ("n=6k+5", ["\\boxed{n=6m+5}"], ["\\boxed{n=6m+1}", "\\boxed{n=6m^2+5}"]),
        ("x=30^\\circ+k\\cdot 90^\\circ", ["\\boxed{x=30^\\circ+n\\cdot 90^\\circ}"], ["\\boxed{x=30^\\circ+n\\cdot 180^\\circ}"]),
        ("x^4+C", ["\\boxed{x^4+c}", "\\boxed{x^4+K}"], ["\\boxed{x^4}", "\\boxed{x^3+K}"]),
        ("P=4ab", [], ["\\boxed{P=4cd}"]),
    ],
    "functions of other countries": [
        ("\\csc 2x", ["\\boxed{\\operatorname{cosec} 2x}", "\\boxed{cosec(2x)}"], ["\\boxed{\\operatorname{sec} 2x}"]),
        ("\\operatorname{ctg} x", ["\\boxed{\\cot x}"], ["\\boxed{\\operatorname{tg} x}"]),
        ("\\operatorname{sh} 3x", ["\\boxed{\\sinh 3x}"], ["\\boxed{\\operatorname{ch} 3x}"]),
        ("\\operatorname{arctg} x", ["\\boxed{\\arctan x}"], ["\\boxed{\\operatorname{tg} x}"]),
        ("\\lg 7", ["\\boxed{\\log_{10} 7}"], ["\\boxed{\\ln 7}"]),
    ],
}  # fmt: skip
KNOWN = {  # a rounded value of one digit, a bracket for what repeats, tags of other shapes, an ordinal in words
    ("(1.7, -0.4)", "(1.73, -0.41)"),
    (r"\frac{1}{6}", "0.1(6 repeating)"),
    ("19", "<answer:19>"),
    ("19", "</think>\n[answer]19[/answer]"),
    ("5", "fifth"),
}
PAIRS = [
    (kind, gold, prediction, side == 0)
    for kind, rows in KINDS.items()
    for gold, *sides in rows
    for side, predictions in enumerate(sides)
    for prediction in predictions
]


@pytest.fixture(scope="module")
def misjudged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    (folder / "in.jsonl").write_text(
        "".join(json.dumps({"gold": gold, "prediction": said}) + "\n" for _, gold, said, _ in PAIRS), encoding="utf-8"
    )
    judge_file(folder / "in.jsonl", folder / "out.jsonl", workers=1, wall_s=30.0, memory_mb=1024)
    verdicts = [json.loads(line)["verdict"] for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    return {(gold, said) for (_, gold, said, right), verdict in zip(PAIRS, verdicts, strict=True) if (verdict == "right") != right}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_and_its_near_misses_are_told_apart(misjudged, kind):
    assert {(gold, said) for name, gold, said, _ in PAIRS if name == kind} & misjudged == {
        (gold, said) for name, gold, said, _ in PAIRS if name == kind and (gold, said) in KNOWN
    }
