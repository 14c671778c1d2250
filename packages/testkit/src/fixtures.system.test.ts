import { execFileSync } from 'node:child_process';
import { lstatSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { run } from '@decant/core/node';
import { describe, expect, inject, it } from 'vitest';

import { debianBase } from './debian-base.ts';
import { startDockerd, whyNoDockerd } from './dockerd.ts';
import { busyboxEntries, writeOciLayout } from './oci-layout.ts';
import { makeTar } from './tar.ts';
import { temporaryDirectory } from './temporary-directory.ts';

const tools = inject('tools');
const dockerHost = inject('dockerHost');
const CACHE = join(import.meta.dirname, '../../../.cache/debian');

describe.skipIf(dockerHost === null || tools['busybox'] === null)('[backend:docker] the daemon of a test run', () => {
  it('builds and runs a step on the default network', async () => {
    await using folder = await temporaryDirectory();
    const image = `decant-testkit-${process.pid}`;
    const env = { ...process.env, DOCKER_HOST: dockerHost! };
    const archive = makeTar(await busyboxEntries());
    await run('docker', ['import', '-', image], { input: archive, env, timeoutMs: 240_000 });
    try {
      const dockerfile = `FROM ${image}\nRUN ["/bin/sh", "-c", "echo built > /etc/issue"]\n`;
      const args = ['build', '-q', '-t', `${image}-built`, '-f', '-', folder.path];
      await run('docker', args, { input: dockerfile, env: { ...env, DOCKER_BUILDKIT: '0' }, timeoutMs: 240_000 });
      const command = ['run', '--rm', '--network', 'none', `${image}-built`, '/bin/cat', '/etc/issue'];
      expect((await run('docker', command, { env, timeoutMs: 240_000 })).stdout.toString()).toBe('built\n');
    } finally {
      await run('docker', ['rmi', '-f', image, `${image}-built`], { env, okCodes: [0, 1], timeoutMs: 240_000 });
    }
  });
});

const noDockerd = await whyNoDockerd();
describe.skipIf(noDockerd !== undefined)('[backend:docker] a private daemon', () => {
  it('removes what a killed process left, and nothing of a living one', async () => {
    const dead = execFileSync('sh', ['-c', 'echo $$']).toString().trim();
    const leftFolder = await mkdtemp(join(tmpdir(), `decant-dockerd-${dead}-`));
    const leftBridge = `dct${Number(dead).toString(36)}-0`;
    execFileSync('ip', ['link', 'add', leftBridge, 'type', 'bridge']);
    await using mine = await temporaryDirectory(`decant-dockerd-${process.pid}-`);
    await using _ = await startDockerd();
    expect(() => statSync(leftFolder)).toThrow('ENOENT');
    expect(execFileSync('ip', ['-o', 'link']).toString()).not.toContain(leftBridge);
    expect(statSync(mine.path).isDirectory()).toBe(true);
  });

  it('leaves no process, mount, bridge or folder behind', async () => {
    let folder: string;
    {
      await using daemon = await startDockerd();
      folder = daemon.host.replace('unix://', '').replace('/docker.sock', '');
      const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'));
      expect(readFileSync(`/proc/${pid}/cmdline`, 'utf8')).toContain(folder);
    }
    expect(() => statSync(folder)).toThrow('ENOENT');
    expect(readFileSync('/proc/self/mountinfo', 'utf8')).not.toContain(folder);
    const own = `dct${process.pid.toString(36)}-`;
    expect(execFileSync('ip', ['-o', 'link']).toString()).not.toContain(own);
  });
});

describe.skipIf(tools['umoci'] === null || tools['busybox'] === null)(
  '[backend:umoci] an OCI layout made in code',
  () => {
    it('is unpacked by umoci', async () => {
      await using folder = await temporaryDirectory();
      const layout = join(folder.path, 'layout');
      await writeOciLayout(layout, {
        layers: [await busyboxEntries(), [{ path: 'etc/issue', data: 'upper\n', mode: 0o600 }]],
        config: { Cmd: ['/bin/sh'] },
      });
      const bundle = join(folder.path, 'bundle');
      const rootless = process.getuid?.() === 0 ? [] : ['--rootless'];
      await run('umoci', ['unpack', ...rootless, '--image', `${layout}:latest`, bundle], { timeoutMs: 240_000 });
      const issue = join(bundle, 'rootfs/etc/issue');
      expect(readFileSync(issue, 'utf8')).toBe('upper\n');
      expect(lstatSync(issue).mode & 0o7777).toBe(0o600);
      expect(readlinkSync(join(bundle, 'rootfs/bin/sh'))).toBe('busybox');
    });
  },
);

describe.skipIf(tools['mmdebstrap'] === null)('[backend:mmdebstrap] a Debian base', () => {
  it('is made once and holds a shell', { timeout: 600_000 }, async () => {
    const file = await debianBase({ cacheFolder: CACHE });
    const made = statSync(file);
    expect(made.size).toBeGreaterThan(50 * 1024 * 1024);
    expect(statSync(await debianBase({ cacheFolder: CACHE })).mtimeMs).toBe(made.mtimeMs);
    const names = (await run('tar', ['-tf', file], { keepBytes: 8 * 1024 * 1024 })).stdout.toString();
    expect(names).toMatch(/^\.\/usr\/bin\/dash$/m);
    expect(names).not.toContain('pkgcache.bin');
  });
});
