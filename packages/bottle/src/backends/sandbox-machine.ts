import { imageEnvironment } from '@decant/core';
import type { Sandbox } from '@decant/jail';

import type { BottleImage, Exec, ExecRequest, Machine } from './backend.ts';

/** A sandbox with what the image says of how commands run in it. */
export function machineOf(sandbox: Sandbox, config: BottleImage['config']): Machine {
  return {
    exec: (request) => exec(sandbox, config, request),
    copyIn: (source, target, limits, signal) => sandbox.copyIn(source, target, limits, signal),
    copyOut: (source, target, limits, signal) => sandbox.copyOut(source, target, limits, signal),
    withFiles: (use, signal) => sandbox.withFiles(use, signal),
    exportChanges: (signal) => sandbox.exportChanges(signal),
    networkNamespace: sandbox.networkNamespace,
    ended: sandbox.ended,
    [Symbol.asyncDispose]: () => sandbox[Symbol.asyncDispose](),
  };
}

async function exec(sandbox: Sandbox, config: BottleImage['config'], request: ExecRequest): Promise<Exec> {
  const { argv, user = config.User, terminal, inheritStdin, timeoutMs, signal } = request;
  const running = await sandbox.exec({
    ...{ argv, user, terminal, inheritStdin, timeoutMs, signal },
    env: { ...imageEnvironment(config), ...request.env },
    workingDir: request.workingDir ?? config.WorkingDir,
    makeWorkingDir: request.workingDir === undefined,
  });
  return {
    ...{ stdin: running.stdin, stdout: running.stdout, stderr: running.stderr, exit: running.exit },
    signal: async (name) => running.signal(name),
    resize: async (size) => running.resize(size),
  };
}
