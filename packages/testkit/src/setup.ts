import { readFile } from 'node:fs/promises';

import { Scope } from '@decant/core';
import { findProgram } from '@decant/core/node';
import type { TestProject } from 'vitest/node';

import { dockerAnswers, startDockerd, whyNoDockerd } from './dockerd.ts';
import { temporaryDirectory } from './temporary-directory.ts';

const TOOLS = [
  ...[
    'buildah',
    'bwrap',
    'busybox',
    'chromium',
    'cpio',
    'debugfs',
    'docker',
    'dockerd',
    'e2fsck',
    'fsck.erofs',
    'fusermount3',
  ],
  ...['getfattr', 'mkfs.erofs', 'mkfs.ext4', 'mmdebstrap', 'nbdcopy', 'nbdfuse', 'nbdinfo', 'qemu-img'],
  ...['qemu-system-x86_64', 'runc', 'skopeo', 'tar', 'umoci', 'zstd', 'ip', 'openssl', 'python3', 'unshare'],
];

/**
 * Vitest's global set-up of the projects `system` and `e2e`: looks for tools, and starts a private Docker daemon
 * when none answers and a chosen test file names the backend docker. Tests get all of it with `inject`.
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  await using scope = new Scope();
  const found = await Promise.all(TOOLS.map(async (name) => [name, (await findProgram(name)) ?? null] as const));
  project.provide('tools', Object.fromEntries(found));
  project.provide('tempRoot', scope.use(await temporaryDirectory('decant-tests-')).path);
  const docker = await provideDocker(project, scope);
  project.provide('dockerHost', docker.host);
  project.provide('dockerReason', docker.reason);
  const owned = scope.move();
  return () => owned[Symbol.asyncDispose]();
}

async function provideDocker(project: TestProject, scope: Scope): Promise<{ host: string | null; reason: string }> {
  const current = process.env['DOCKER_HOST'] ?? 'unix:///var/run/docker.sock';
  if (await dockerAnswers(current)) return { host: current, reason: '' };
  if (!(await needsDocker(project))) return { host: null, reason: 'no test that was chosen needs it' };
  const why = await whyNoDockerd();
  if (why !== undefined) return { host: null, reason: why };
  try {
    const { host } = scope.use(await startDockerd());
    // Test processes start after this and inherit it, so that the docker command finds the daemon as well.
    const before = process.env['DOCKER_HOST'];
    process.env['DOCKER_HOST'] = host;
    scope.defer(() => {
      if (before === undefined) delete process.env['DOCKER_HOST'];
      else process.env['DOCKER_HOST'] = before;
    });
    return { host, reason: '' };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    console.error(reason);
    return { host: null, reason };
  }
}

async function needsDocker(project: TestProject): Promise<boolean> {
  // The file names on the command line; where a version of vitest has no such field, all files count.
  const { filenamePattern } = project.vitest as { readonly filenamePattern?: string[] };
  const { testFiles } = await project.globTestFiles(filenamePattern);
  for (const file of testFiles) {
    if ((await readFile(file, 'utf8')).includes('[backend:docker]')) return true;
  }
  return false;
}
