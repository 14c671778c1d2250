import { DecantError, MIB, quote } from '@decant/core';

import { hex, sandboxGone, unhex } from './conversation.ts';
import { checkInside, TASK_STREAMS, withTask } from './copy.ts';
import type { SandboxEntrance } from './entrance.ts';
import { FILE_TASK } from './file-task.ts';
import { joinProgram } from './join-program.ts';
import { PieceReader } from './tree-writer.ts';
import type { SandboxFiles } from './types.ts';

export const FILE_PROGRAM = joinProgram(FILE_TASK);
export const FILE_STREAMS = TASK_STREAMS;
const MOST_BYTES = 8 * MIB;

/** See Sandbox.withFiles. */
export async function withFiles(
  entrance: SandboxEntrance,
  use: (files: SandboxFiles) => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const task = { args: [String(MOST_BYTES)], user: undefined, signal };
  await withTask(FILE_PROGRAM, entrance, task, async ({ child, stdout }) => {
    const answers = new PieceReader(stdout);
    let before: Promise<unknown> = Promise.resolve();
    /** One question at a time; the answers come in their order. */
    const ask = <T>(question: Uint8Array, read: () => Promise<T>): Promise<T> => {
      const answered = before.then(async () => {
        child.stdin!.write(question);
        return await read();
      });
      before = answered.catch(() => undefined);
      return answered;
    };
    await use({
      async read(path) {
        checkInside(path);
        return await ask(Buffer.from(`read ${hex(path)}\n`), async () => {
          const [verb, length] = await answers.words();
          if (verb === 'none') return undefined;
          if (verb !== 'file' || !/^\d{1,8}$/.test(length ?? '') || Number(length) > MOST_BYTES) throw sandboxGone();
          return await bytesOf(answers, Number(length));
        });
      },
      async write(path, content, mode) {
        checkInside(path);
        if (content.length > MOST_BYTES) {
          throw new DecantError('LIMIT_EXCEEDED', `${quote(path)} would have more than ${MOST_BYTES} bytes.`);
        }
        const head = Buffer.from(`write ${mode.toString(8)} ${content.length} ${hex(path)}\n`);
        return await ask(Buffer.concat([head, content]), async () => {
          const [verb, ...words] = await answers.words();
          if (verb === 'ok') return words.map(unhex);
          if (verb !== 'fail') throw sandboxGone();
          throw new DecantError('USAGE', `${quote(path)} cannot be written: ${quote(unhex(words[0]))}.`);
        });
      },
    });
    // It ends by itself; one that is ended from outside is waited for when the sandbox ends.
    const ended = new Promise<void>((resolve) => {
      if (child.stdout!.closed) resolve();
      else child.stdout!.once('close', resolve);
    });
    child.stdin!.end();
    child.stdout!.resume();
    await ended;
    signal?.throwIfAborted();
  });
}

async function bytesOf(answers: PieceReader, length: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let left = length; left > 0;) {
    const piece = await answers.some(left);
    pieces.push(piece);
    left -= piece.length;
  }
  return Buffer.concat(pieces);
}
