-- A link out of nbs/ leads to a file of the repository: on the site, to the page that shows it, or else to GitHub.
local repository = 'https://github.com/llmbook/llmbook/blob/main/'
local pages = {
  ['CHANGELOG.md'] = 'changelog.md',
  ['CONTRIBUTING.md'] = 'contributing.md',
  ['README.md'] = 'index.ipynb',
  ['benchmarks/RESULTS.md'] = 'benchmarks.md',
}

function Link(link)
  local file = link.target:match('^%.%./(.+)$')
  if not file then return nil end
  link.target = pages[file] or repository .. file
  return link
end
