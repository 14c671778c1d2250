import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

import { ERROR_CODES, exitStatusOf, httpStatusOf, type ErrorCode } from '../../packages/core/src/index.ts';

/** A group of the side bar, as VitePress has it. */
export interface SidebarGroup {
  readonly text: string;
  readonly link?: string;
  readonly collapsed?: boolean;
  readonly items?: readonly SidebarGroup[];
}

/** The text of the first heading of a page, or the name of its file. */
export function titleOf(file: string): string {
  return /^# (.+)$/m.exec(readFileSync(file, 'utf8'))?.[1]?.replaceAll('`', '') ?? basename(file, '.md');
}

/**
 * Links between Markdown files of the repository that have no page on the site become plain text, because the site
 * must not have dead links. `has` says whether a file, relative to the repository, is a page.
 */
export function withoutForeignLinks(markdown: string, has: (target: string) => boolean): string {
  return markdown.replace(/\[([^\]\n]+)\]\((?!https?:|#|mailto:)([^)\s]+)\)/g, (link, text: string, target: string) =>
    has(target) ? link : text,
  );
}

/** Copies the Markdown files of a folder to the site, with a page that lists them; returns their group. */
export function copyFolder(from: string, site: string, name: string, title: string, empty: string): SidebarGroup {
  const target = join(site, name);
  mkdirSync(target, { recursive: true });
  const files = existsSync(from)
    ? readdirSync(from)
        .filter((file) => file.endsWith('.md'))
        .sort()
    : [];
  for (const file of files) {
    const text = withoutForeignLinks(readFileSync(join(from, file), 'utf8'), (link) =>
      files.includes(link.replace(/#.*/, '').replace(/^\.\//, '')),
    );
    writeFileSync(join(target, file), text);
  }
  const items = files
    .filter((file) => file !== 'index.md')
    .map((file) => ({ text: titleOf(join(from, file)), link: `/${name}/${basename(file, '.md')}` }));
  if (!files.includes('index.md')) {
    const list = items.map((item) => `- [${item.text}](${item.link})`).join('\n');
    writeFileSync(join(target, 'index.md'), `# ${title}\n\n${list === '' ? empty : list}\n`);
  }
  return { text: title, link: `/${name}/`, collapsed: true, items };
}

/** Pages written by hand. */
export function copyPages(from: string, site: string): void {
  cpSync(from, site, { recursive: true });
}

/** The beginning of README.md becomes the first page to read, without its links to files of the repository. */
export function gettingStarted(readme: string | undefined, site: string): void {
  const text =
    readme === undefined
      ? '# Getting started\n\n```sh\nnpx -y pnpm@12.21.0 demo\nnpx -y pnpm@12.21.0 test\n```\n\n' +
        'As root on a Debian machine with git, Node and npm, from a clone of the repository: the first command builds an\n' +
        'example image, streams it and runs a command in it; the second runs all tests.\n'
      : readme.replace(/^# .+$/m, '# Getting started');
  writeFileSync(
    join(site, 'getting-started.md'),
    withoutForeignLinks(text, () => false),
  );
}

/** SECURITY.md, without its links to files of the repository. */
export function security(text: string, site: string): void {
  write(
    join(site, 'security.md'),
    withoutForeignLinks(text, () => false),
  );
}

/** A table of every error code, from the table that the code itself uses. */
export function errorCodes(site: string): void {
  const families = new Map<string, ErrorCode[]>();
  for (const code of Object.keys(ERROR_CODES) as ErrorCode[]) {
    const { family } = ERROR_CODES[code];
    families.set(family, [...(families.get(family) ?? []), code]);
  }
  const lines = [
    '# Error codes',
    '',
    'Every error of decant has one of these codes. The command line ends with the exit status beside it; services answer',
    'with the HTTP status in a problem document (RFC 9457) that carries the code, where no contract fixes another.',
  ];
  for (const [family, codes] of [...families].sort(([a], [b]) => (a < b ? -1 : 1))) {
    lines.push('', `## ${family}`, '', '| code | meaning | exit | HTTP |', '|---|---|---|---|');
    for (const code of codes.toSorted()) {
      lines.push(`| \`${code}\` | ${ERROR_CODES[code].meaning} | ${exitStatusOf(code)} | ${httpStatusOf(code)} |`);
    }
  }
  write(join(site, 'error-codes.md'), `${lines.join('\n')}\n`);
}

export function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}
