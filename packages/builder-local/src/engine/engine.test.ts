import type { ProgressEvent } from '@decant/core';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { engineMissing } from './engine-missing.ts';
import { openEngine } from './engine.ts';
import { nameCandidates, slugOf } from './names.ts';
import { PushReader } from './push-progress.ts';

describe('names', () => {
  it('are slugs', () => {
    expect(slugOf('  My App_2 (copy)! ')).toBe('my-app-2-copy');
    for (const text of ['', '---', 'ü', ' ']) {
      expect(() => slugOf(text)).toThrow(expect.objectContaining({ code: 'NAME_INVALID' }));
    }
    fc.assert(
      fc.property(fc.string(), (text) => {
        const slug = /[a-z0-9]/i.test(text) ? slugOf(text) : 'a';
        expect(slug).toMatch(/^[a-z0-9]+(-[a-z0-9]+)*$/);
        expect(slugOf(slug)).toBe(slug);
      }),
    );
  });

  it('have a hundred candidates', () => {
    const all = [...nameCandidates('base')];
    expect(all).toHaveLength(100);
    expect([all[0], all[1], all[99]]).toEqual(['base', 'base-2', 'base-100']);
  });
});

describe('an engine that is not there', () => {
  it('is said with where to get it', async () => {
    await expect(
      openEngine('docker', { program: '/nonexistent' }).then((engine) => engine.imageId('a')),
    ).rejects.toMatchObject({
      code: 'BUILD_ENGINE_MISSING',
      message: 'docker is not installed.',
    });
    expect(engineMissing('docker', undefined, 'linux').hint).toContain(
      'apt-get install -y --no-install-recommends docker.io',
    );
    expect(engineMissing('docker', undefined, 'darwin').hint).toContain('mac-install');
    expect(engineMissing('docker', undefined, 'win32').hint).toContain('windows-install');
    expect(engineMissing('podman', undefined, 'linux').hint).toContain('podman runc uidmap');
  });

  it('is not asked about what is no name', async () => {
    const engine = await openEngine('docker', { program: '/nonexistent' });
    for (const name of ['', '-rf', '--help', 'a b', 'a\nb', 'x'.repeat(600)]) {
      await expect(engine.imageId(name)).rejects.toMatchObject({ code: 'NAME_INVALID' });
      await expect(engine.containerExists(name)).rejects.toMatchObject({ code: 'NAME_INVALID' });
    }
  });
});

describe('the progress of a push', () => {
  const read = (lines: readonly string[]) => {
    const events: ProgressEvent[] = [];
    const reader = new PushReader((event) => events.push(event));
    for (const line of lines) reader.line(line);
    const counts = events.map((event) => (event.type === 'stage-progress' ? [event.items, event.totalItems] : []));
    return { counts, digest: reader.digest };
  };

  it('of docker', () => {
    const digest = `sha256:${'a'.repeat(64)}`;
    const lines = [
      'The push refers to repository [127.0.0.1:5000/app]',
      '0123456789ab: Preparing',
      'ba9876543210: Preparing',
      '0123456789ab: Waiting',
      'ba9876543210: Layer already exists',
      '0123456789ab: Pushed',
      `v1: digest: ${digest} size: 528`,
    ];
    expect(read(lines)).toEqual({
      counts: [
        [0, 1],
        [0, 2],
        [1, 2],
        [2, 2],
      ],
      digest,
    });
  });

  it('of podman', () => {
    const lines = [
      'Getting image source signatures',
      `Copying blob sha256:${'b'.repeat(64)}`,
      'Copying config sha256:12',
      'Storing signatures',
    ];
    expect(read(lines)).toEqual({
      counts: [
        [0, 1],
        [1, 1],
      ],
      digest: undefined,
    });
  });
});
