import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { describe, expect, it } from 'vitest';

import { sleep } from '../wait.ts';
import { findProgram, run } from './run.ts';
import { spooled } from './spool.ts';

const perl = await findProgram('perl');
const LINES = 300_000;

describe.skipIf(perl === undefined)('output taken off a program at once', () => {
  const sh = (script: string) => spooled(perl!, ['/bin/sh', '-c', script]);

  it('lets a program end whose output nobody has read yet, and loses none of it', async () => {
    // The program ends when it has written everything, and says so beside its output.
    const [program, ...args] = sh(`i=0; while [ $i -lt ${LINES} ]; do i=$((i+1)); echo $i; done; echo >&3`);
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe', 'pipe'] });
    const closed = once(child, 'close');
    const stdout = child.stdout!;
    await once(child.stdio[3]!, 'data');
    let text = '';
    for await (const piece of stdout.setEncoding('utf8')) {
      text += piece;
      if (text.length < 100_000) await sleep(1);
    }
    expect(await closed).toEqual([0, null]);
    const lines = text.trimEnd().split('\n');
    expect(lines.length).toBe(LINES);
    expect(lines.findIndex((line, i) => line !== String(i + 1))).toBe(-1);
  });

  it('keeps the streams apart, the exit status and the signal', async () => {
    const [program, ...args] = sh('echo out; echo err >&2; exit 7');
    const result = await run(program, args, { okCodes: [7] });
    expect([result.exitCode, result.stdout.toString(), result.stderr.toString()]).toEqual([7, 'out\n', 'err\n']);
    const [other, ...words] = sh('kill -9 $$');
    expect(await once(spawn(other, words, { stdio: 'ignore' }), 'exit')).toEqual([null, 'SIGKILL']);
    const [third, ...rest] = spooled(perl!, ['/nonexistent']);
    await expect(run(third, rest)).rejects.toMatchObject({ code: 'PROCESS_FAILED', details: { exitCode: 127 } });
  });

  it('gives what a program says at its end, and ends with it', async () => {
    const controller = new AbortController();
    const lines: string[] = [];
    const [program, ...args] = sh('trap "echo bye; exit 0" TERM; echo ready; while :; do sleep 0.05; done');
    const ended = run(program, args, {
      signal: controller.signal,
      killAfterMs: 60_000,
      onLine: (line, stream) => {
        // The shell says on the other that something it ran was ended.
        if (stream === 'stdout') lines.push(line);
        if (line === 'ready') controller.abort(new Error('enough'));
      },
    });
    await expect(ended).rejects.toThrow('enough');
    expect(lines).toEqual(['ready', 'bye']);
  });

  it('does not wait for processes that stay behind', async () => {
    const started = performance.now();
    const [program, ...args] = sh('sleep 60 & echo last; exit 3');
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const [text, ended] = await Promise.all([child.stdout.setEncoding('utf8').toArray(), once(child, 'close')]);
    expect([text.join(''), ended]).toEqual(['last\n', [3, null]]);
    const [other, ...words] = sh('setsid sh -c "while :; do echo y; done" & sleep 0.2; exit 3');
    expect(await run(other, words, { okCodes: [3] })).toMatchObject({ exitCode: 3 });
    expect(performance.now() - started).toBeLessThan(50_000);
  });

  it('tells a program whose output nobody wants any more', async () => {
    const [program, ...args] = sh('while :; do echo y; done');
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    const closed = once(child, 'exit');
    await once(child.stdout, 'data');
    child.stdout.destroy();
    expect((await closed)[1]).toBe('SIGPIPE');
  });
});
