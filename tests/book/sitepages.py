"""How nbdev is told to show exported names on the site: `pyproject.toml` names what is here.

Every exported cell shows its source, so a signature above it would say everything twice. What is left is a heading to
link to. `make docs` and `staging.py` put the repository's root on the path.
"""
from nbdev.doclinks import NbdevLookup
from nbdev.process import Processor
from nbdev.showdoc import BasicMarkdownRenderer


class Heading(BasicMarkdownRenderer):
    "A heading, and a link to the source in the repository."

    def _repr_markdown_(self):
        heading = f"{'#' * self.title_level} {self.nm}"
        source = NbdevLookup().code(self.fn)
        if not source: return heading
        return f'[source]({source}){{.source-link}}\n\n{heading}'


def is_heading(cell):
    "Was this cell made by nbdev, for an exported name?"
    return cell.cell_type == 'code' and 'show_doc(' in cell.source


class headings_first(Processor):
    "nbdev puts the first of a cell's headings above the cell and the others below; all belong above."

    def begin(self):
        cells = self.nb.cells
        for i, cell in enumerate(cells):
            if not is_heading(cell): continue
            above = i
            while above > 0 and 'exports' in getattr(cells[above-1], 'directives_', {}): above -= 1
            cells.insert(above, cells.pop(i))
