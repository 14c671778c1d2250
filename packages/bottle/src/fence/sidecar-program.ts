import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** How Node starts the sidecar, and what it must be able to read for that. */
export interface SidecarProgram {
  readonly node: string;
  readonly args: readonly string[];
  /** Absolute paths of files or folders. */
  readonly reads: readonly string[];
}

/**
 * A small young generation stays in the processor's cache while bodies pass through it: a third less time for each byte
 * than with the default. The heap is bounded; a sidecar that needs more ends, and with it all egress. No signal opens a debugger.
 */
const FLAGS = ['--max-semi-space-size=1', '--max-old-space-size=256', '--disable-sigusr1'] as const;

/**
 * The sidecar beside this module: one bundled file in a published package and in the command's own folder. In sources it is a module
 * among others, so the whole workspace is read.
 */
export function sidecarProgram(url: URL = defaultSidecarUrl()): SidecarProgram {
  const script = fileURLToPath(url);
  const node = process.execPath;
  if (!script.endsWith('.ts')) return { node, args: [...FLAGS, script], reads: [node, script] };
  return { node, args: [...FLAGS, '--conditions=@decant/source', script], reads: [node, workspaceOf(script)] };
}

function defaultSidecarUrl(): URL {
  const here = import.meta.url;
  return new URL(here.endsWith('.ts') ? '../egress/sidecar.ts' : './sidecar.mjs', here);
}

function workspaceOf(script: string): string {
  let folder = dirname(script);
  while (!existsSync(join(folder, 'pnpm-workspace.yaml')) && folder !== dirname(folder)) folder = dirname(folder);
  return folder;
}
