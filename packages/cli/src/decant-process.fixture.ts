import { spawn, type ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** How the command is started from its sources: a program and its first arguments. */
export const DECANT: readonly [string, ...string[]] = [
  process.execPath,
  '--conditions=@decant/source',
  fileURLToPath(new URL('main.ts', import.meta.url)),
];

export interface Outcome {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface DecantProcess {
  readonly child: ChildProcess;
  /** What it has printed so far. */
  readonly output: { stdout: string; stderr: string };
  /** Its end; a process that takes longer than five minutes is killed. */
  readonly outcome: Promise<Outcome>;
}

/** Starts the command as a process of its own with these variables and no other of decant's. */
export function startDecant(args: readonly string[], env: Readonly<Record<string, string>>, input = ''): DecantProcess {
  const [program, ...first] = DECANT;
  const foreign = Object.keys(process.env).filter((name) => name.startsWith('DECANT_'));
  const child = spawn(program, [...first, ...args], {
    env: { ...process.env, ...Object.fromEntries(foreign.map((name) => [name, undefined])), ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
    timeout: 300_000,
    killSignal: 'SIGKILL',
  });
  const output = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => (output.stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (output.stderr += text));
  child.stdin.on('error', () => undefined).end(input);
  const outcome = new Promise<Outcome>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, ...output }));
  });
  return { child, output, outcome };
}
