import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import { OPERATOR_SOCKET } from './internet.ts';
import type { WorldCalls } from './world.ts';

export type World = WorldCalls & AsyncDisposable;

interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: string;
}

const METHODS = [
  'start',
  'open',
  'fail',
  'exec',
  'copyIn',
  'copyOut',
  'audit',
  'sightings',
  'stop',
  'killSidecar',
] as const satisfies (keyof WorldCalls)[];
const END_MS = 120_000;

/** Starts the process that plays the internet, in a network namespace of its own, and gives its calls. `canary` is in its environment. */
export async function startWorld(folder: string, canary: string): Promise<World> {
  const child = fork(join(import.meta.dirname, 'world.ts'), [], {
    execPath: 'unshare',
    execArgv: ['--net', process.execPath, '--conditions=@decant/source', '--no-warnings'],
    env: {
      ...process.env,
      NODE_OPTIONS: '',
      ESCAPE_CANARY: canary,
      // What an operator's session has, and no bottle may use.
      SSH_AUTH_SOCK: join(folder, OPERATOR_SOCKET),
      DBUS_SESSION_BUS_ADDRESS: `unix:path=${join(folder, OPERATOR_SOCKET)}`,
      DISPLAY: ':0',
    },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const waiting = new Map<number, (answer: Answer) => void>();
  let next = 0;
  let ended = false;
  child.on('message', (answer: Answer) => {
    waiting.get(answer.id)?.(answer);
    waiting.delete(answer.id);
  });
  child.on('exit', () => {
    ended = true;
    for (const settle of waiting.values()) settle({ id: 0, error: 'the world has ended' });
  });
  const call = async (name: keyof WorldCalls, args: readonly unknown[]): Promise<unknown> => {
    if (ended) throw new Error('the world has ended');
    const id = next++;
    const { promise, resolve } = Promise.withResolvers<Answer>();
    waiting.set(id, resolve);
    child.send({ id, name, args });
    const { value, error } = await promise;
    if (error !== undefined) throw new Error(error);
    return value;
  };
  const calls = Object.fromEntries(METHODS.map((name) => [name, (...args: unknown[]) => call(name, args)]));
  const world = calls as unknown as WorldCalls;
  await world.start(folder);
  return {
    ...world,
    async [Symbol.asyncDispose]() {
      if (ended) return;
      child.disconnect();
      const timer = setTimeout(() => child.kill('SIGKILL'), END_MS);
      await once(child, 'exit');
      clearTimeout(timer);
    },
  };
}
