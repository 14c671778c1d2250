import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { Application, type TypeDocOptions } from 'typedoc';
import type { PluginOptions } from 'typedoc-plugin-markdown';

import { withoutForeignLinks, write, type SidebarGroup } from './pages.ts';

interface ApiPackage {
  readonly shortName: string;
  readonly folder: string;
  readonly name: string;
  readonly description: string;
  readonly entries: readonly string[];
}

/** Writes the reference of each package from its sources and returns the group that leads to them. */
export async function writeApi(packages: readonly ApiPackage[], site: string, here: string): Promise<SidebarGroup> {
  for (const item of packages) await writePackage(item, join(site, 'api', item.shortName), here);
  const items = packages.map((item) => ({ text: item.name, link: `/api/${item.shortName}/` }));
  const rows = packages.map((item) => `| [${item.name}](/api/${item.shortName}/) | ${item.description} |`);
  const table = ['| package | what it is |', '|---|---|', ...rows].join('\n');
  write(join(site, 'api/index.md'), `# API\n\nWritten from the sources of each package.\n\n${table}\n`);
  return { text: 'API', link: '/api/', collapsed: true, items };
}

async function writePackage(item: ApiPackage, target: string, here: string): Promise<void> {
  const readme = join(item.folder, 'README.md');
  const options: TypeDocOptions & PluginOptions = {
    name: item.name,
    entryPoints: [...item.entries],
    tsconfig: join(here, 'tsconfig.api.json'),
    plugin: ['typedoc-plugin-markdown'],
    out: target,
    readme: 'none',
    entryFileName: 'reference',
    hideBreadcrumbs: true,
    hidePageHeader: true,
    useCodeBlocks: true,
    disableSources: true,
    excludePrivate: true,
    excludeInternal: true,
    // Types are checked by the build of the packages.
    skipErrorChecking: true,
    logLevel: 'Error',
    gitRevision: 'main',
  };
  const application = await Application.bootstrapWithPlugins(options);
  const project = await application.convert();
  if (project === undefined) throw new Error(`TypeDoc could not read ${item.name}`);
  await application.generateOutputs(project);
  if (application.logger.hasErrors()) throw new Error(`TypeDoc found errors in ${item.name}`);
  const text = existsSync(readme) ? readFileSync(readme, 'utf8') : `# ${item.name}\n\n${item.description}\n`;
  const page = withoutForeignLinks(text, () => false);
  write(join(target, 'index.md'), `${page.trimEnd()}\n\n## Reference\n\n[Everything it exports](./reference)\n`);
}
