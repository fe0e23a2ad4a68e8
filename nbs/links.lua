-- A link out of nbs/ leads to a file of the repository: on the site, to the page that shows it, or else to GitHub.
-- In the Markdown twin of a page, a link to a notebook leads to the page that it becomes: 130_attention.ipynb to attention.html.
local repository = 'https://github.com/llmbook/llmbook/blob/main/'
local pages = {
  ['CHANGELOG.md'] = 'changelog.md',
  ['CONTRIBUTING.md'] = 'contributing.md',
  ['README.md'] = 'index.ipynb',
  ['benchmarks/RESULTS.md'] = 'benchmarks.md',
}

function Link(link)
  local file = link.target:match('^%.%./(.+)$')
  if not file then
    local name, anchor = link.target:match('^%d*_?([%w_]+)%.ipynb(#?.*)$')
    if not name or FORMAT:match('html') then return nil end
    link.target = name .. '.html' .. anchor
    return link
  end
  link.target = pages[file] or repository .. file
  return link
end
