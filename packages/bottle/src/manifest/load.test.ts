import { chmod, chown, mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { run } from '@decant/core/node';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { loadManifest } from './load.ts';
import { listManifests, operatorDirectory } from './operator-directory.ts';
import { environmentOf } from './spec.ts';

let root: string;
let directory: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'decant-manifest-'));
  directory = join(root, 'bottles.d');
  await mkdir(directory, { mode: 0o755 });
});
afterEach(async () => {
  await rm(root, { recursive: true, force: true });
});

const put = (name: string, text: string) => writeFile(join(directory, `${name}.yaml`), text, { mode: 0o644 });
const load = (name: string) => loadManifest(name, { directory });

describe('loadManifest', () => {
  it('loads by name, with what it extends', async () => {
    await put('base', 'image: app\nlimits: {cpus: 1}\n');
    await put('middle', 'extends: base\nlimits: {processes: 10}\n');
    await put('agent', 'extends: middle\nlimits: {cpus: 3}\n');
    const { manifest, files } = await load('agent');
    expect(manifest).toEqual({ name: 'agent', image: 'app', limits: { cpus: 3, processes: 10 } });
    expect(files.map((file) => file.split('/').at(-1))).toEqual(['agent.yaml', 'middle.yaml', 'base.yaml']);
    await put('named', 'extends: agent\nname: Other Name\n');
    expect((await load('named')).manifest.name).toBe('Other Name');
    expect(await listManifests(directory)).toEqual(['agent', 'base', 'middle', 'named']);
  });

  it('a mistake in what is extended is found in that file', async () => {
    await put('base', 'image: app\noops: 1\n');
    await put('agent', 'extends: base\n');
    await expect(load('agent')).rejects.toThrow(/base\.yaml:2:1: There is no key "oops"/);
  });

  it('bounds chains, and refuses circles', async () => {
    await put('a', 'extends: b\n');
    await put('b', 'extends: a\n');
    await put('self', 'extends: self\n');
    await expect(load('a')).rejects.toThrow('a → b → a');
    await expect(load('self')).rejects.toThrow('self → self');
    for (let index = 0; index < 9; index++) await put(`m${index}`, `extends: m${index + 1}\n`);
    await put('m9', '');
    await expect(load('m0')).rejects.toThrow('extends more than 7 others');
    await expect(load('m2')).resolves.toMatchObject({ files: { length: 8 } });
  });

  it.each(['../x', '/etc/passwd', './a', 'a.yaml', '', '-a', 'A', 'a\0', 'a\n', 'a/b', 'x'.repeat(300), 'а'])(
    'takes no path and nothing else that is no name: %j',
    async (name) => {
      await expect(load(name)).rejects.toMatchObject({ code: 'NAME_INVALID' });
    },
  );

  it('says what is missing', async () => {
    await expect(load('none')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(loadManifest('a', { directory: join(root, 'nowhere') })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await put('agent', 'extends: none\n');
    await expect(load('agent')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    expect(await listManifests(join(root, 'nowhere'))).toEqual([]);
  });

  it('trusts nothing that others can write', async () => {
    await put('agent', 'image: app\n');
    const untrusted = { code: 'BOTTLE_MANIFEST_UNTRUSTED' };
    await chmod(join(directory, 'agent.yaml'), 0o666);
    await expect(load('agent')).rejects.toMatchObject(untrusted);
    await chmod(join(directory, 'agent.yaml'), 0o664);
    await expect(load('agent')).rejects.toMatchObject(untrusted);
    // What that bit says of folders it does not say of files.
    await chmod(join(directory, 'agent.yaml'), 0o1666);
    await expect(load('agent')).rejects.toMatchObject(untrusted);
    await chmod(join(directory, 'agent.yaml'), 0o600);
    await expect(load('agent')).resolves.toMatchObject({ manifest: { image: 'app' } });
    await chmod(directory, 0o777);
    await expect(load('agent')).rejects.toMatchObject(untrusted);
    await chmod(directory, 0o755);
    await chmod(root, 0o775);
    await expect(load('agent')).rejects.toMatchObject(untrusted);
    await chmod(root, 0o1777);
    await expect(load('agent')).resolves.toMatchObject({ manifest: { image: 'app' } });
  });

  it('follows links inside its folder only, and reads plain files only', async () => {
    const untrusted = { code: 'BOTTLE_MANIFEST_UNTRUSTED' };
    await writeFile(join(root, 'outside.yaml'), 'image: evil\n');
    await symlink(join(root, 'outside.yaml'), join(directory, 'out.yaml'));
    await expect(load('out')).rejects.toMatchObject(untrusted);
    await put('agent', 'image: app\n');
    await symlink('agent.yaml', join(directory, 'inside.yaml'));
    expect((await load('inside')).manifest).toEqual({ name: 'inside', image: 'app' });
    await symlink('loop.yaml', join(directory, 'loop.yaml'));
    await expect(load('loop')).rejects.toMatchObject(untrusted);
    await mkdir(join(directory, 'folder.yaml'));
    await expect(load('folder')).rejects.toMatchObject(untrusted);
    // The folder itself may be a link: what it leads to is judged.
    await rename(directory, join(root, 'real'));
    await symlink('real', directory);
    expect((await load('agent')).manifest.image).toBe('app');
    await chmod(join(root, 'real'), 0o777);
    await expect(load('agent')).rejects.toMatchObject(untrusted);
  });

  it.skipIf(process.geteuid?.() !== 0)('trusts no files of other users', async () => {
    await put('agent', 'image: app\n');
    await chown(join(directory, 'agent.yaml'), 1234, 1234);
    await expect(load('agent')).rejects.toMatchObject({ code: 'BOTTLE_MANIFEST_UNTRUSTED' });
    await chown(join(directory, 'agent.yaml'), 0, 0);
    await chown(directory, 1234, 1234);
    await expect(load('agent')).rejects.toThrow('belongs to user 1234');
  });

  it.skipIf(process.platform === 'win32')('does not wait for a pipe', async () => {
    await run('mkfifo', [join(directory, 'agent.yaml')]);
    await expect(load('agent')).rejects.toMatchObject({ code: 'BOTTLE_MANIFEST_UNTRUSTED' });
  });

  it('bounds the file and wants UTF-8', async () => {
    await put('large', `# ${'x'.repeat(300_000)}\n`);
    await expect(load('large')).rejects.toThrow('more than 262144 bytes');
    await writeFile(join(directory, 'latin.yaml'), Buffer.from([0x61, 0x3a, 0x20, 0xff, 0xfe]));
    await expect(load('latin')).rejects.toThrow('is not UTF-8');
  });
});

describe('operatorDirectory', () => {
  it.each([
    [{ DECANT_HOME: '/data', XDG_CONFIG_HOME: '/config', HOME: '/home/a' }, '/data/bottles.d'],
    [{ XDG_CONFIG_HOME: '/config', HOME: '/home/a' }, '/config/decant/bottles'],
    [{ DECANT_HOME: '', XDG_CONFIG_HOME: '', HOME: '/home/a' }, '/home/a/.config/decant/bottles'],
  ])('of %j is %s', (env, path) => {
    expect(operatorDirectory(env)).toBe(path);
  });

  it.each([{ DECANT_HOME: '.decant' }, { XDG_CONFIG_HOME: 'config' }, { HOME: '.' }])(
    'is never below the working directory: %j',
    (env) => {
      expect(() => operatorDirectory(env)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }));
    },
  );
});

describe('environmentOf', () => {
  it("gives values, and those of the operator's variables", () => {
    const sources = { MODE: 'fast', TOKEN: { from: 'HOST_TOKEN' } };
    expect(environmentOf(sources, { HOST_TOKEN: 's' })).toEqual({ MODE: 'fast', TOKEN: 's' });
    expect(() => environmentOf(sources, {})).toThrow('TOKEN comes from HOST_TOKEN');
  });
});
