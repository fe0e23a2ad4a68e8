"What pip reads: the metadata of settings.ini, and the version of llmbook/__init__.py."
import re
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

here, ini = Path(__file__).parent, ConfigParser(delimiters=['='], interpolation=None)
ini.read(here/'settings.ini', encoding='utf-8')
p, extras = ini['package'], {k: v.split('\n')[1:] for k, v in ini['extras'].items()}
setup(
    name=p['name'], version=re.search(r'__version__ = "(.+)"', (here/'llmbook/__init__.py').read_text('utf-8'))[1],
    description=p['description'], keywords=p['keywords'].split(', '), author=p['author'], license=p['license'],
    classifiers=[f"Development Status :: {p['status']}", 'Programming Language :: Python :: 3 :: Only'],
    long_description=(here/'README.md').read_text('utf-8'), long_description_content_type='text/markdown',
    python_requires=f">={p['min_python']}", install_requires=p['requirements'].split('\n')[1:], extras_require=extras,
    entry_points={'console_scripts': [p['console_scripts']], 'nbdev': [f"{p['name']}={p['name']}._modidx:d"]},
    packages=find_packages(include=['llmbook*']), package_data={'llmbook': ['assets/*', 'assets/*/*']}, zip_safe=False)
