import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect, test } from 'vitest';

import { buildOptionsOf, secretsOf } from './build-options.ts';
import { contextOf, derivationOf } from './image-create.ts';

test('secrets come from files and from the environment', () => {
  const env = { TOKEN: 't=1,2', EMPTY: '' };
  expect(secretsOf(undefined, env)).toEqual([]);
  expect(
    secretsOf(['id=a,src=/x/y=z', 'type=env,id=b,env=TOKEN', 'id=TOKEN', 'id=file', 'id=c,env=EMPTY'], env),
  ).toEqual([
    { id: 'a', file: '/x/y=z' },
    { id: 'b', value: 't=1,2' },
    { id: 'TOKEN', value: 't=1,2' },
    { id: 'file', file: 'file' },
    { id: 'c', value: '' },
  ]);
});

test.each(['', 'a', 'src=/x', 'id=,src=/x', 'id=a,src=/x,env=B', 'id=a,mode=1', 'id=a,env=UNSET'])(
  'no secret: %j',
  (spec) => {
    expect(() => secretsOf([spec], {})).toThrow(expect.objectContaining({ code: 'USAGE' }));
  },
);

test('what an engine is told', async () => {
  expect(await buildOptionsOf({ cache: false, builder: 'podman', network: 'none' }, {})).toMatchObject({
    cache: 'ignore',
    engine: { builder: 'podman', network: 'none' },
  });
  expect(await buildOptionsOf({ cache: 'refresh' }, {})).toMatchObject({
    cache: 'refresh',
    engine: { builder: undefined },
  });
  for (const options of [{ builder: 'kaniko' }, { network: 'bridge' }, { cache: 'yes' }]) {
    await expect(buildOptionsOf(options, {})).rejects.toMatchObject({ code: 'USAGE' });
  }
});

test('logins come from a file of docker, whose faults show no secret', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'decant-logins-'));
  try {
    const file = join(directory, 'config.json');
    const auth = Buffer.from('me:a:b').toString('base64');
    const hub = { username: 'you', password: 'c' };
    await writeFile(
      file,
      JSON.stringify({ auths: { 'reg.example:5000': { auth }, 'https://index.docker.io/v1/': hub } }),
    );
    expect((await buildOptionsOf({ registryAuth: file }, {})).engine?.auth).toEqual({
      'reg.example:5000': { username: 'me', password: 'a:b' },
      'docker.io': { username: 'you', password: 'c' },
    });
    for (const text of ['{"auths":{"h":{"auth":"c2VjcmV0"}}}', '{"secret"', '[]', '{}']) {
      await writeFile(file, text);
      const failure: unknown = await buildOptionsOf({ registryAuth: file }, {}).catch((error: unknown) => error);
      expect(failure).toMatchObject({ code: 'CONFIG_INVALID' });
      expect(JSON.stringify(failure)).not.toContain('secret');
    }
    await expect(buildOptionsOf({ registryAuth: join(directory, 'none') }, {})).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    });
  } finally {
    await rm(directory, { recursive: true });
  }
});

test('a derived image takes a base and a workspace, and no context', () => {
  expect(derivationOf('.', {})).toBeUndefined();
  expect(contextOf('.')).toBe('.');
  expect(() => contextOf(undefined)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  expect(derivationOf(undefined, { fromImage: 'b', workspace: 'w', gitignore: true })).toEqual({
    base: 'b',
    workspace: 'w',
    gitignore: true,
  });
  const wrong = [
    { workspace: 'w' },
    { gitignore: true },
    { fromImage: 'b' },
    { fromImage: 'b', workspace: 'w', file: 'D' },
  ];
  for (const options of wrong) {
    expect(() => derivationOf(undefined, options)).toThrow(expect.objectContaining({ code: 'USAGE' }));
  }
  expect(() => derivationOf('.', { fromImage: 'b', workspace: 'w' })).toThrow(/nothing is built/);
});
