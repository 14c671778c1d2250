import { formatBytes } from '@decant/core';
import type { ImageChange, ImageDiff } from '@decant/sdk';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { print, printable, printJson, stdout, type Style } from '../render/terminal.ts';

export interface DiffOptions extends CommonOptions {
  readonly ignoreTimes?: boolean;
  readonly exitCode?: boolean;
}

/** Exit status of `--exit-code` when the images are not the same, as of diff(1). */
const DIFFERENT_STATUS = 1;

export function diffAction(before: string, after: string, options: DiffOptions): Promise<void> {
  return invokeWired(options, async ({ decant, progress, signal }) => {
    const { onEvent } = progress;
    const diff = await decant.images.diff({ before, after, ignoreTimes: options.ignoreTimes }, { onEvent, signal });
    progress.end();
    if (options.json === true) printJson(diff);
    else for (const line of diffLines(diff, stdout.style)) print(line);
    const different = diff.changes.length > 0 || diff.config.length > 0;
    return options.exitCode === true && different ? DIFFERENT_STATUS : 0;
  });
}

/** A diff for people: a line per path, then what it comes to. */
export function diffLines({ before, after, changes, counts, config, cost }: ImageDiff, style: Style): string[] {
  const { chunks, bytes } = cost;
  const lines = changes.map((change) => changeLine(change, style));
  if (config.length > 0) lines.push(`${style.yellow('~')} configuration: ${printable(config.join(', '))}`);
  if (changes.length === 0) lines.push(config.length === 0 ? 'the two are the same' : 'the files are the same');
  else lines.push(style.bold(`${counts.added} added, ${counts.removed} removed, ${counts.changed} changed`));
  const refs = `${printable(after.ref)} has`;
  lines.push(
    chunks.new === 0
      ? `${refs} no chunk that ${printable(before.ref)} has not`
      : `${refs} ${chunks.new} of ${chunks.total} chunks that ${printable(before.ref)} has not: ` +
          `${formatBytes(bytes.new)}, stored ${formatBytes(bytes.newStored)} of ${formatBytes(bytes.totalStored)}`,
  );
  return lines;
}

function changeLine({ path, change, facts, before, after }: ImageChange, style: Style): string {
  const name = printable(path);
  if (change === 'added') return `${style.green('+')} ${name}  ${style.dim(describe(after))}`;
  if (change === 'removed') return `${style.red('-')} ${name}  ${style.dim(describe(before))}`;
  const details = facts.map((fact) => {
    if (before === null || after === null) return fact;
    if (fact === 'type') return `${before.kind} → ${after.kind}`;
    if (fact === 'mode') return `mode ${before.mode.toString(8)} → ${after.mode.toString(8)}`;
    if (fact === 'owner') return `owner ${before.uid}:${before.gid} → ${after.uid}:${after.gid}`;
    if (fact === 'content' && before.sizeBytes !== after.sizeBytes) {
      return `content ${formatBytes(before.sizeBytes)} → ${formatBytes(after.sizeBytes)}`;
    }
    return fact;
  });
  return `${style.yellow('~')} ${name}  ${style.dim(details.join(', '))}`;
}

function describe(entry: ImageChange['after']): string {
  if (entry === null) return '';
  return entry.kind === 'file' ? formatBytes(entry.sizeBytes) : entry.kind;
}
