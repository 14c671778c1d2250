import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { saveFromEngine } from './image-transfer-engine.ts';
import { parsePlatform } from './image-transfer.ts';
import { parseSource } from './import-source.ts';

const refused = (code: string) => expect.objectContaining({ code });

describe('parseSource', () => {
  it('takes sources apart', () => {
    expect(parseSource('oci:a:b/c:v1')).toEqual({ kind: 'oci', path: 'a:b/c', tag: 'v1' });
    expect(parseSource('oci:a:b/c')).toEqual({ kind: 'oci', path: 'a:b/c', tag: undefined });
    expect(parseSource('registry:localhost:5000/a:b')).toEqual({ kind: 'registry', reference: 'localhost:5000/a:b' });
    expect(parseSource('docker:a:b')).toEqual({ kind: 'docker', reference: 'a:b' });
    expect(parseSource('podman:a:b')).toEqual({ kind: 'podman', reference: 'a:b' });
    expect(parseSource('buildah:a@sha256:' + 'a'.repeat(64))).toMatchObject({ kind: 'buildah' });
    for (const kind of ['docker-archive', 'oci-archive', 'tar', 'dir', 'overlay2', 'raw']) {
      expect(parseSource(`${kind}:a:\nb`)).toEqual({ kind, path: 'a:\nb' });
    }
  });

  it('refuses what is none', () => {
    for (const text of ['', 'a', 'oci', 'oci:', 'registry:', 'OCI:a', 'http://x', ' dir:a']) {
      expect(() => parseSource(text)).toThrow(refused('USAGE'));
    }
    expect(() => parseSource('registry:A B')).toThrow(refused('NAME_INVALID'));
  });
});

describe('parsePlatform', () => {
  it('reads platforms', () => {
    expect(parsePlatform(undefined)).toBeUndefined();
    expect(parsePlatform('linux/arm/v7')).toEqual({ os: 'linux', architecture: 'arm', variant: 'v7' });
    for (const bad of ['', 'linux', 'linux/', 'a/b/c/d', 'LINUX/amd64', 'linux/amd64\n']) {
      expect(() => parsePlatform(bad)).toThrow(refused('USAGE'));
    }
  });
});

describe('saveFromEngine', () => {
  const image = (kind: 'docker' | 'podman' | 'buildah', reference = 'app:1') => ({ kind, reference });

  it('asks every engine there is, in order, and never with an option for a name', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'engines-'));
    const before = process.env['PATH'];
    const { chmod, writeFile, readFile } = await import('node:fs/promises');
    try {
      const program = async (name: string, script: string) => {
        await writeFile(join(directory, name), `#!/bin/sh\necho "${name} $*" >> "${directory}/calls"\n${script}\n`);
        await chmod(join(directory, name), 0o755);
      };
      await program('docker', 'exit 1');
      await program('podman', 'exit 0');
      await program('buildah', 'exit 0');
      process.env['PATH'] = `${directory}:${before}`;
      const file = await saveFromEngine(image('docker'), { scratchDirectory: directory });
      expect(await readFile(join(directory, 'calls'), 'utf8')).toBe(
        `docker image inspect --format {{.Id}} app:1\npodman image exists app:1\npodman save --quiet --format docker-archive --output ${file} app:1\n`,
      );
      for (const bad of ['-x', '--all', '', 'a b', '/etc', 'a;b']) {
        await expect(saveFromEngine(image('docker', bad), { scratchDirectory: directory })).rejects.toEqual(
          refused('NAME_INVALID'),
        );
      }
      for (const name of ['podman', 'buildah']) await program(name, 'exit 1');
      await expect(saveFromEngine(image('docker'), { scratchDirectory: directory })).rejects.toMatchObject({
        code: 'NOT_FOUND',
        details: { asked: ['docker', 'podman', 'buildah'] },
      });
      for (const kind of ['podman', 'buildah'] as const) {
        await program('docker', 'exit 0');
        await expect(saveFromEngine(image(kind), { scratchDirectory: directory })).rejects.toMatchObject({
          code: 'NOT_FOUND',
          details: { asked: [kind] },
        });
      }
    } finally {
      process.env['PATH'] = before;
      await rm(directory, { recursive: true, force: true });
    }
  });
});
