"""A stand-in for the site, where Quarto is not installed: staged pages as HTML in Quarto's class names.

    python tests/book/standin.py OUT [BASE.css]

stages the pages, turns them into HTML with nbconvert, and writes them to OUT with `book.scss` compiled. `BASE.css` may
be a real Bootstrap; without it a few rules take the place of the ones that decide how wide things are.
"""
import base64
import html
import json
import re
import sys
import tempfile
from pathlib import Path

import sass
import yaml
from nbconvert.filters import markdown2html

ROOT = Path(__file__).resolve().parents[2]
BASE = """
*, ::before, ::after { box-sizing: border-box }
body { margin: 0; line-height: 1.5; background: #fff; color: #212529; overflow-wrap: break-word }
body.quarto-dark { background: #15181c; color: #dfe3e8 }
pre { display: block; margin: 0 0 1rem; overflow: auto; white-space: pre }
code { word-wrap: break-word } pre code { word-break: normal }
table { border-collapse: collapse } th, td { padding: .5rem; text-align: left }
.img-fluid { max-width: 100%; height: auto } figure { margin: 0 0 1rem }
.row { display: grid } .btn { display: inline-block; padding: .375rem .75rem; border: 1px solid }
"""
SHELL = """<!doctype html><html lang="en-GB"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{css}
mjx-container[display="true"] {{ display: block }}
.page-columns {{ max-width: 860px; margin: 0 auto; padding: 0 1.2rem }}</style></head>
<body class="{mode}"><div id="quarto-content" class="page-columns"><main class="content" id="quarto-document-content">
<header id="title-block-header" class="quarto-title-block default"><h1 class="title">{title}</h1>
<p class="description">{description}</p></header>
{body}
</main></div></body></html>"""


def stylesheet(dark=False):
    "What `book.scss` and, for dark pages, `dark.scss` add to a Bootstrap theme."
    parts = [(ROOT/'nbs'/name).read_text('utf-8') for name in ('book.scss', 'dark.scss')[:1 + dark]]
    return sass.compile(string='\n'.join(parts))


def opened(fence):
    "The tag that opens a fenced div."
    classes = ' '.join(re.findall(r'[.]([\w-]+)', fence[1]))
    return f'<div class="{classes}">\n'


def prose(text):
    "Markdown as HTML; fenced divs of Pandoc and displayed formulas get the tags that Quarto gives them."
    text = re.sub(r'^:::+ *\{(.*?)\}', opened, text, flags=re.M)
    text = re.sub(r'^:::+ *$', '\n</div>', text, flags=re.M)
    text = re.sub(r'\]\(([^)\s]+)\)\{[^}]*\}', r'](\1)', text)
    body = markdown2html(text)
    body = re.sub(r'\$\$(.+?)\$\$', r'<mjx-container display="true"><span style="white-space: nowrap">\1</span></mjx-container>',
                  body, flags=re.S)
    return body.replace('<img ', '<img class="img-fluid" ')


def picture(source): return f'<figure class="figure"><img class="img-fluid figure-img" src="{source}"></figure>'


def output(data):
    "One output of a cell."
    if 'image/svg+xml' in data:
        svg = base64.b64encode(data['image/svg+xml'].encode()).decode()
        return picture(f'data:image/svg+xml;base64,{svg}')
    if 'image/png' in data: return picture(f"data:image/png;base64,{data['image/png']}")
    if 'text/html' in data: return data['text/html']
    if 'text/markdown' in data: return prose(data['text/markdown'])
    return f'<pre><code>{html.escape(data.get("text/plain", ""))}</code></pre>'


def code_cell(cell):
    "Source and outputs."
    source, shown = ''.join(cell['source']), []
    for out in cell.get('outputs', []):
        data = {mime: ''.join(d) if isinstance(d, list) else d for mime, d in out.get('data', {}).items()}
        shown.append(output(data or {'text/plain': ''.join(out.get('text', ''))}))
    shown = ''.join(f'<div class="cell-output">{part}</div>' for part in shown)
    if '#| echo: false' in source: return f'<div class="cell">{shown}</div>'
    lines = [line for line in source.splitlines() if not line.startswith('#|')]
    text = html.escape('\n'.join(lines))
    block = f'<div class="sourceCode cell-code"><pre class="sourceCode python"><code>{text}</code></pre></div>'
    if 'code-fold' in source:
        state = ' open' if 'code-fold: show' in source else ''
        block = f'<details class="code-fold"{state}><summary>Code</summary>{block}</details>'
    return f'<div class="cell">{block}{shown}</div>'


def page(path, css, mode=''):
    "A staged page as HTML."
    text, front = path.read_text('utf-8'), {}
    if path.suffix == '.ipynb':
        cells = json.loads(text)['cells']
        if cells and cells[0]['cell_type'] == 'raw':
            front = yaml.safe_load(''.join(cells[0]['source']).strip().strip('-')) or {}
            cells = cells[1:]
        body = '\n'.join(code_cell(c) if c['cell_type'] == 'code' else prose(''.join(c['source'])) for c in cells)
    else:
        if m := re.match(r'---\n(.*?)\n---\n', text, re.S):
            front, text = yaml.safe_load(m[1]), text[m.end():]
        body = prose(text)
    title, description = html.escape(str(front.get('title', path.stem))), html.escape(str(front.get('description', '')))
    return SHELL.format(title=title, description=description, body=body, css=css, mode=mode)


def build(staged, out, base=BASE, dark=False):
    "Write every staged page of a folder to another, and return the files."
    out.mkdir(parents=True, exist_ok=True)
    css = base + stylesheet(dark)
    made = []
    for path in sorted(p for p in staged.iterdir() if p.suffix in ('.ipynb', '.md')):
        made.append(out/f"{re.sub(r'^[0-9]+_', '', path.stem)}.html")
        made[-1].write_text(page(path, css, 'quarto-dark' if dark else 'quarto-light'), 'utf-8')
    images = out/'images'
    images.mkdir(exist_ok=True)
    for picture in (staged/'images').iterdir(): (images/picture.name).write_bytes(picture.read_bytes())
    return made


def main():
    from test_layout import copy_house, run
    out = Path(sys.argv[1])
    base = Path(sys.argv[2]).read_text('utf-8') if len(sys.argv) > 2 else BASE
    with tempfile.TemporaryDirectory() as folder:
        site = copy_house(ROOT, Path(folder)/'site')
        run(site, sys.executable, ROOT/'tests/book/staging.py')
        for dark in (False, True): build(site/'_proc', out/('dark' if dark else 'light'), base, dark)


if __name__ == '__main__': main()
