import { run, type RunOptions, type RunResult } from '../../packages/core/src/node/index.ts';
import { inject } from 'vitest';

/** Whether all these programs are installed, as the global set-up found them. */
export function have(...names: readonly string[]): boolean {
  const tools = inject('tools');
  return names.every((name) => typeof tools[name] === 'string');
}

export const isRoot = process.getuid?.() === 0;

/** Runs a tool with a bound of five minutes unless another is given. */
export function tool(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return run(command, args, { timeoutMs: 300_000, ...options });
}

/** The same, for its standard output as text. */
export async function output(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  return (await tool(command, args, options)).stdout.toString('utf8');
}
