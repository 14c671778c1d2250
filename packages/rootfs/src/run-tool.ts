import { open } from 'node:fs/promises';

import { MIB } from '@decant/core';
import { run } from '@decant/core/node';

export interface RunToolOptions {
  /** Added to what the tool finds in its environment. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** The absolute path of the folder the tool starts in; default: that of this process. */
  readonly cwd?: string | undefined;
  /** Absolute paths the tool reads: files or folders. */
  readonly readable?: readonly string[] | undefined;
  /** Absolute paths of existing files the tool writes. */
  readonly writable?: readonly string[] | undefined;
  /**
   * Where standard output waits until the tool has ended: the absolute path of a file, which is made or replaced. For
   * a tool that prints a piece at a time, each of which would wake this process otherwise.
   */
  readonly stdoutFile?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface ToolResult {
  readonly exitCode: number | null;
  /** At least the last MiB. */
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
}

/**
 * Runs one of the filesystem tools and gives back how it ended, whatever its exit code; the caller decides how it is
 * confined. @throws PROCESS_MISSING when the tool is not installed
 */
export type RunTool = (command: string, args: readonly string[], options?: RunToolOptions) => Promise<ToolResult>;

const ANY_CODE = Array.from({ length: 256 }, (_, code) => code);
const LONGEST_MS = 30 * 60 * 1000;

/** Runs the tool as it is, without confinement, for at most 30 minutes. For images from a trusted source. */
export const runToolDirectly: RunTool = async (command, args, { env, cwd, stdoutFile, signal } = {}) => {
  const { PATH = '' } = process.env;
  const options = {
    env: { LC_ALL: 'C', PATH: `${PATH}:/usr/local/sbin:/usr/sbin:/sbin`, ...env },
    ...(cwd === undefined ? {} : { cwd }),
    okCodes: ANY_CODE,
    timeoutMs: LONGEST_MS,
    signal,
  };
  if (stdoutFile === undefined) return run(command, args, options);
  await using file = await open(stdoutFile, 'w+', 0o600);
  const result = await run(command, args, { ...options, stdoutFile: file.fd });
  const { size } = await file.stat();
  const kept = Buffer.alloc(Math.min(size, MIB));
  const { bytesRead } = await file.read(kept, 0, kept.length, size - kept.length);
  return { ...result, stdout: kept.subarray(0, bytesRead) };
};

/** The last lines a tool wrote, for a message. */
export function lastLines({ stdout, stderr }: ToolResult): string {
  const text = `${Buffer.from(stdout).toString('utf8')}\n${Buffer.from(stderr).toString('utf8')}`.trim();
  return text.split('\n').slice(-12).join('\n').slice(-4000);
}
