import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { verdictOf, type BenchResult } from '../../bench/report.ts';
import { write, type SidebarGroup } from './pages.ts';

/** A result as it stands in its file. */
type StoredResult = BenchResult & { readonly machine: Readonly<Record<string, string | number>> };

/** Pages from the files that `pnpm bench` wrote, one each, and their group; undefined when there is none. */
export function benchPages(results: string, site: string): SidebarGroup | undefined {
  const files = existsSync(results) ? readdirSync(results).filter((file) => file.endsWith('.json')) : [];
  if (files.length === 0) return undefined;
  const items = files.sort().map((file) => {
    const result = JSON.parse(readFileSync(join(results, file), 'utf8')) as StoredResult;
    write(join(site, 'benchmarks', `${result.name}.md`), benchPage(result));
    return { text: result.name, link: `/benchmarks/${result.name}` };
  });
  const list = items.map(({ text, link }) => `- [${text}](${link})`).join('\n');
  write(join(site, 'benchmarks/index.md'), `# Benchmarks\n\n${list}\n`);
  return { text: 'Benchmarks', link: '/benchmarks/', collapsed: true, items };
}

export function benchPage(result: StoredResult): string {
  const { name, fields, goals, absolute, input, machine } = result;
  const rows = Object.entries(fields).map(([field, value]) => {
    const { least, most } = goals[field] ?? {};
    const must = least === undefined ? (most === undefined ? '' : `at most ${most}`) : `at least ${least}`;
    return `| \`${field}\` | ${value ?? '–'} | ${must} | ${verdictOf(value, goals[field])} |`;
  });
  const facts = Object.entries({ ...input, ...machine }).map(([key, value]) => `- ${key}: ${value}`);
  return [
    `# Benchmark: ${name}`,
    '',
    `Written by \`pnpm bench ${name}\`. A field \`a_vs_b\` is a ÷ b; rates where it names hashes, scans or workers, else time,`,
    'processor time or bytes. Only these ratios are held to anything; bare numbers are of one machine.',
    '',
    '| field | measured | must be | |',
    '|---|---|---|---|',
    ...rows,
    '',
    '## Against what must be',
    '',
    plot(result),
    '',
    '## This machine',
    '',
    ...facts,
    '',
    '| number | value |',
    '|---|---|',
    ...Object.entries(absolute).map(([key, value]) => `| \`${key}\` | ${value} |`),
    '',
  ].join('\n');
}

const BAR = 22;
const LABELS = 240;
const WIDTH = 720;

/** One bar for each field with a goal: how many times the goal is met; the line is 1. */
function plot({ fields, goals }: BenchResult): string {
  const bars = Object.entries(goals).flatMap(([name, { least, most }]) => {
    const value = fields[name];
    if (value === null || value === undefined) return [];
    return [{ name, times: least === undefined ? (most ?? 0) / value : value / least }];
  });
  const largest = Math.max(2, ...bars.map(({ times }) => times));
  const x = (times: number) => LABELS + (times / largest) * (WIDTH - LABELS - 50);
  const lines = bars.flatMap(({ name, times }, i) => {
    const y = 8 + i * BAR;
    const color = times >= 1 ? '#3a7d44' : '#b3402a';
    return [
      `<text x="${LABELS - 8}" y="${y + 13}" text-anchor="end" fill="currentColor">${name}</text>`,
      `<rect x="${LABELS}" y="${y}" width="${(x(times) - LABELS).toFixed(1)}" height="16" fill="${color}" />`,
      `<text x="${(x(times) + 6).toFixed(1)}" y="${y + 13}" fill="currentColor">${times.toFixed(2)}</text>`,
    ];
  });
  const height = 16 + bars.length * BAR;
  return [
    `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="Measured values as multiples of their goals" font-size="12">`,
    ...lines,
    `<line x1="${x(1).toFixed(1)}" y1="2" x2="${x(1).toFixed(1)}" y2="${height - 4}" stroke="currentColor" stroke-dasharray="3 3" />`,
    '</svg>',
  ].join('\n');
}
