import { formatBytes, formatDuration } from '@decant/core';
import type { ListedBottle } from '@decant/sdk';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { print, printJson, printTable, say, stderr } from '../render/terminal.ts';
import { millisecondsOf } from './bottle-request.ts';

export function listAction(options: CommonOptions & { readonly all?: boolean }): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const bottles = await decant.bottles.list({ all: options.all }, { signal });
    if (options.json === true) {
      printJson({ bottles });
      return;
    }
    if (bottles.length === 0) {
      say('There are no bottles. Run one with: decant bottle run --image NAME -- CMD…');
      return;
    }
    const now = Date.now();
    printTable(
      ['NAME', 'STATE', 'IMAGE', 'BACKEND', 'STARTED', 'MAY REACH', 'COMMAND'],
      bottles.map((one) => row(one, now)),
    );
  });
}

function row(bottle: ListedBottle, now: number): string[] {
  const { slug, state, image, startedAt, info, ended } = bottle;
  const exit = ended?.exitCode ?? undefined;
  const ago = Math.max(0, Math.round((now - Date.parse(startedAt)) / 1000) * 1000);
  return [
    slug,
    state === 'ended' && exit !== undefined ? `ended (${exit})` : state,
    image,
    info?.backend ?? '-',
    `${formatDuration(ago)} ago`,
    info === null ? '-' : info.routes.length === 0 ? 'nothing' : info.routes.join(' '),
    info === null || info.command.length === 0 ? '-' : info.command.join(' '),
  ];
}

export function stopAction(
  names: readonly string[],
  options: CommonOptions & { readonly grace: string },
): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const graceMs = options.grace === '0' ? 0 : (millisecondsOf('--grace', options.grace) ?? 0);
    for (const slug of names) {
      await decant.bottles.stop({ slug, graceMs }, { signal });
      if (options.json !== true) say(`stopped ${slug}`);
    }
    if (options.json === true) printJson({ stopped: names });
  });
}

export function snapshotAction(slug: string, name: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, progress, signal }) => {
    const result = await decant.bottles.snapshot({ slug, name }, { onEvent: progress.onEvent, signal });
    progress.end();
    if (options.json === true) {
      printJson(result);
      return;
    }
    const { image, chunks, bytes } = result;
    print(`${image.name}:${image.tag}  ${image.id}`);
    if (chunks !== null) {
      say(`  ${chunks.total} chunks: ${chunks.new} new, ${chunks.reused} shared; stored ${formatBytes(bytes.stored)}`);
    }
  });
}

export function collectAction(options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const { collected, running, failed } = await decant.bottles.gc({ signal });
    if (options.json === true) {
      printJson({
        collected,
        running,
        failed: failed.map(({ slug, error }) => ({
          slug,
          message: error instanceof Error ? error.message : String(error),
        })),
      });
    } else {
      for (const { slug, kinds } of collected) print(`removed ${slug}: ${kinds.join(', ')}`);
      for (const { slug, error } of failed) {
        const why = error instanceof Error ? error.message : String(error);
        say(`${stderr.style.red(stderr.style.bold('error:'))} ${slug} could not be removed: ${why}`);
      }
      if (collected.length === 0 && failed.length === 0) say('There is nothing to remove.');
      if (running.length > 0) say(`left alone: ${running.join(', ')}`);
    }
    return failed.length > 0 ? 1 : 0;
  });
}
