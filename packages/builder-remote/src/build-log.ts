import { buildEndOf, unescapeLogLine } from '@decant/core';
import { followEvents, type HttpClient } from '@decant/transport';

/** One line of a build's log, or a stretch of it that the service does not have any more. */
export type LogItem =
  | { readonly type: 'line'; readonly line: string; readonly number: number | undefined }
  | { readonly type: 'gap'; readonly lines: number };

export interface FollowLogOptions {
  /** Milliseconds without any progress after which to give up; default 120,000. */
  readonly patienceMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * The lines of a build's log from the first on, until its end event, over as many connections as it takes. Lines that
 * carry numbers come once each and in order; a service that numbers none may repeat some after a cut.
 * @throws what `followEvents` throws.
 */
export async function* followLog(
  client: HttpClient,
  buildId: string,
  options: FollowLogOptions = {},
): AsyncGenerator<LogItem, void> {
  let last = 0;
  const events = followEvents(client, `/builds/${encodeURIComponent(buildId)}/logs`, {
    ...options,
    isEnd: ({ data }) => buildEndOf(data) !== undefined,
  });
  for await (const { id, data } of events) {
    if (buildEndOf(data) !== undefined) return;
    const line = unescapeLogLine(data);
    const number = id !== undefined && /^\d{1,15}$/.test(id) ? Number(id) : undefined;
    if (number === undefined) {
      yield { type: 'line', line, number };
      continue;
    }
    if (number <= last) continue;
    if (number > last + 1) yield { type: 'gap', lines: number - last - 1 };
    last = number;
    yield { type: 'line', line, number };
  }
}
