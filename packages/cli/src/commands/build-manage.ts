import { formatDuration, type RemoteBuild } from '@decant/core';

import { invokeWired } from '../invoke.ts';
import type { CommonOptions } from '../options.ts';
import { print, printable, printJson, printTable, say } from '../render/terminal.ts';
import { pageLimitOf } from './page-options.ts';

export function listAction(
  options: CommonOptions & { readonly limit: string; readonly cursor?: string },
): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const page = { limit: pageLimitOf(options.limit), cursor: options.cursor };
    const { builds, nextCursor } = await decant.builds.list(page, { signal });
    if (options.json === true) {
      printJson({ builds, nextCursor });
      return;
    }
    if (builds.length === 0) {
      say('There are no builds.');
      return;
    }
    printTable(
      ['ID', 'STATUS', 'IMAGE', 'ARCH', 'LINES', 'TOOK', 'CREATED'],
      builds.map((build) => [
        build.build_id,
        statusOf(build),
        build.image_name,
        build.architecture ?? '-',
        String(build.log_lines),
        tookOf(build),
        shownTime(build.created_at),
      ]),
    );
    if (nextCursor !== null) say(`more with --cursor ${nextCursor}`);
  });
}

export function getAction(id: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    const build = await decant.builds.get(id, { signal });
    if (options.json === true) {
      printJson(build);
      return;
    }
    const rows: [string, string][] = [
      ['status', statusOf(build)],
      ['image', build.image_ref ?? build.image_name],
      ['architecture', build.architecture ?? '-'],
      ['engine', build.engine ?? '-'],
      ['lines', String(build.log_lines)],
      ['created', shownTime(build.created_at)],
      ['took', tookOf(build)],
    ];
    if (build.error !== null) rows.push(['error', `${build.error.message} [${build.error.code}]`]);
    printTable(['BUILD', build.build_id], rows);
  });
}

export function logsAction(id: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    for await (const item of decant.builds.logs(id, { signal })) {
      if (options.json === true) print(JSON.stringify(item));
      else if (item.type === 'line') print(printable(item.line));
      else say(`(${item.lines} lines were not kept)`);
    }
  });
}

export function cancelAction(id: string, options: CommonOptions): Promise<void> {
  return invokeWired(options, async ({ decant, signal }) => {
    // The service takes any id; whoever mistypes one should learn of it.
    const before = await decant.builds.get(id, { signal });
    await decant.builds.cancel(id, { signal });
    const over = before.status !== 'queued' && before.status !== 'running';
    if (options.json === true) printJson({ build_id: before.build_id, cancelled: !over, status: before.status });
    else say(over ? `the build had ended already: ${before.status}` : `cancelled ${before.build_id}`);
  });
}

function statusOf({ status, position, attempt }: RemoteBuild): string {
  if (status === 'queued' && position !== null) return `queued (${position})`;
  return status === 'running' && attempt > 1 ? `running (start ${attempt})` : status;
}

function tookOf({ started_at: started, finished_at: finished }: RemoteBuild): string {
  if (started === null) return '-';
  return formatDuration(Math.max(0, (finished === null ? Date.now() : Date.parse(finished)) - Date.parse(started)));
}

function shownTime(text: string): string {
  return text.slice(0, 19).replace('T', ' ');
}
