import { PassThrough, type Readable } from 'node:stream';

import type { ControlGroup } from '../cgroup.ts';
import { CHANGES_PROGRAM } from './changes-program.ts';
import { converse, hex, sandboxGone } from './conversation.ts';
import { answer } from './exec.ts';
import type { SandboxEntrance } from './entrance.ts';

/** See Sandbox.exportChanges. */
export function exportChanges(
  { holder, userNamespace, base, ids, filter }: SandboxEntrance,
  group: Pick<ControlGroup, 'freezer'> | undefined,
  signal: AbortSignal | undefined,
): Readable {
  const output = new PassThrough();
  // It may fail before anybody reads it, who then hears of it.
  output.on('error', () => undefined);
  const talk = converse(CHANGES_PROGRAM, ['ignore', 'pipe', 'ignore']);
  const onAbort = () => void output.destroy(signal?.reason as Error);
  signal?.addEventListener('abort', onAbort, { once: true });
  output.once('close', () => {
    signal?.removeEventListener('abort', onAbort);
    talk.end();
    // Whoever waits for a reader does not look at what it is told, and commands stand still until it does.
    talk.stdout.destroy();
  });
  const { file = '', freeze = '', thaw = '' } = group?.freezer ?? {};
  const seccomp = Buffer.from(filter).toString('hex');
  talk.send('export', holder, hex(userNamespace), base, ids, seccomp, hex(file), hex(freeze), hex(thaw));
  talk.stdout.pipe(output, { end: false });
  const drained = new Promise<void>((resolve) => talk.stdout.once('close', resolve));
  (async () => {
    await answer(talk, 'started');
    await answer(talk, 'done');
    await drained;
    output.end();
  })().catch((error: unknown) => {
    signal?.removeEventListener('abort', onAbort);
    output.destroy(error instanceof Error ? error : sandboxGone());
  });
  if (signal?.aborted === true) onAbort();
  return output;
}
