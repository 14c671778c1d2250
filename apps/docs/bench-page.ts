import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { verdictOf, type BenchResult, type Goal } from '../../bench/report.ts';
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
const LABELS = 260;
const NUMBERS = 60;
const WIDTH = 720;
/** What is met more often than this, or less often than its inverse, ends at the edge. */
const MOST_TIMES = 64;

/** How many times a goal is met; less than 1 when it is missed. */
function timesMet(value: number, { least, most = 0 }: Goal): number {
  if (least !== undefined) return least === 0 ? 1 : value / least;
  return value === most ? 1 : value <= 0 ? Number.POSITIVE_INFINITY : most / value;
}

/**
 * One bar for each field with a goal: how many times it is met, on a logarithmic scale; those that are missed end left of
 * the line, which is 1.
 */
function plot({ fields, goals }: BenchResult): string {
  const bars = Object.entries(goals).flatMap(([name, goal]) => {
    const value = fields[name];
    return value === null || value === undefined ? [] : [{ name, times: timesMet(value, goal) }];
  });
  const logs = bars.map(({ times }) => Math.log2(Math.min(Math.max(times, 1 / MOST_TIMES), MOST_TIMES)));
  const [low, high] = [Math.floor(Math.min(-1, ...logs)), Math.ceil(Math.max(1, ...logs))];
  const x = (log: number) => LABELS + ((log - low) / (high - low)) * (WIDTH - LABELS - NUMBERS);
  const lines = bars.flatMap(({ name, times }, i) => {
    const y = 8 + i * BAR;
    const [from, to] = [x(Math.min(0, logs[i]!)), x(Math.max(0, logs[i]!))];
    const color = times >= 1 ? '#3a7d44' : '#b3402a';
    const number = times > MOST_TIMES ? `> ${MOST_TIMES}` : times.toFixed(times < 10 ? 2 : 0);
    return [
      `<text x="${LABELS - 8}" y="${y + 13}" text-anchor="end" fill="currentColor">${name}</text>`,
      `<rect x="${from.toFixed(1)}" y="${y}" width="${Math.max(1, to - from).toFixed(1)}" height="16" fill="${color}" />`,
      `<text x="${(to + 6).toFixed(1)}" y="${y + 13}" fill="currentColor">${number}</text>`,
    ];
  });
  const height = 16 + bars.length * BAR;
  return [
    `<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-label="Measured values as multiples of their goals" font-size="12">`,
    ...lines,
    `<line x1="${x(0).toFixed(1)}" y1="2" x2="${x(0).toFixed(1)}" y2="${height - 4}" stroke="currentColor" stroke-dasharray="3 3" />`,
    '</svg>',
    '',
    'How many times each goal is met, on a logarithmic scale. What ends left of the line is missed.',
  ].join('\n');
}
