import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import { build } from 'vitepress';

import { isEmptyPackage, workspacePackages } from '../../scripts/workspace.ts';
import { writeApi } from './api.ts';
import { benchPages } from './bench-page.ts';
import { copyFolder, copyPages, errorCodes, gettingStarted, security, write } from './pages.ts';

/*
 * Gathers the site in .site/ from pages written here, documents of the repository and the sources, then builds it into
 * .vitepress/dist/. `--pages-only` stops before the last step, for `vitepress dev`.
 */
const { values } = parseArgs({ options: { 'pages-only': { type: 'boolean' } } });
const here = import.meta.dirname;
const root = join(here, '../..');
const site = join(here, '.site');
rmSync(site, { recursive: true, force: true });

copyPages(join(here, 'pages'), site);
const readme = join(root, 'README.md');
gettingStarted(existsSync(readme) ? readFileSync(readme, 'utf8') : undefined, site);
errorCodes(site);
const guides = copyFolder(join(root, 'docs'), site, 'guides', 'Guides', 'None is written yet.');
security(readFileSync(join(root, 'SECURITY.md'), 'utf8'), site);
const formats = copyFolder(join(root, 'docs/formats'), site, 'formats', 'Formats', 'No format is written up yet.');
const decisions = copyFolder(join(root, 'docs/decisions'), site, 'decisions', 'Decisions', 'None is recorded yet.');
const benchmarks = benchPages(join(root, 'bench/results'), site);
const packages = workspacePackages()
  .filter((item) => item.manifest.private !== true && !isEmptyPackage(item))
  .filter((item) => item.manifest.exports?.['.'] !== undefined)
  .map((item) => ({
    shortName: item.shortName,
    folder: item.folder,
    name: item.manifest.name,
    description: item.manifest.description ?? '',
    entries: ['src/index.ts', 'src/node/index.ts'].map((file) => join(item.folder, file)).filter(existsSync),
  }));
const api = await writeApi(packages, site, here);
const sidebar = [
  { text: 'Getting started', link: '/getting-started' },
  guides,
  { text: 'Security', link: '/security' },
  formats,
  { text: 'Error codes', link: '/error-codes' },
  decisions,
  ...(benchmarks === undefined ? [] : [benchmarks]),
  api,
];
write(join(site, 'sidebar.json'), JSON.stringify(sidebar));
if (values['pages-only'] !== true) await build(here);
