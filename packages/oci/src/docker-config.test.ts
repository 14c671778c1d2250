import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';

import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { dockerCredentials } from './docker-config.ts';
import { failure } from './testing/streams.ts';

let directory: string;
let path: string | undefined;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'docker-config-'));
  path = process.env['PATH'];
});
afterEach(async () => {
  process.env['PATH'] = path;
  await rm(directory, { recursive: true, force: true });
});

const config = (value: unknown) => writeFile(join(directory, 'config.json'), JSON.stringify(value));
const lookup = (registry: string) => dockerCredentials({ directory })(registry);
const base64 = (text: string) => Buffer.from(text).toString('base64');

async function helper(name: string, script: string): Promise<void> {
  const file = join(directory, `docker-credential-${name}`);
  await writeFile(file, `#!/bin/sh\n${script}\n`);
  await chmod(file, 0o755);
  process.env['PATH'] = `${directory}${delimiter}${path}`;
}

describe('dockerCredentials', () => {
  it('reads what docker login wrote', async () => {
    await config({
      auths: {
        'one.example:5000': { auth: base64('me:pass:word\0') },
        'https://two.example/v1/': { auth: base64('two:p') },
        'https://index.docker.io/v1/': { auth: base64('hub:p') },
        'three.example': { identitytoken: 'refresh', auth: base64('<token>:') },
        'four.example': { username: 'me', password: 'plain' },
        'empty.example': {},
      },
    });
    expect(await lookup('four.example')).toEqual({ kind: 'password', username: 'me', password: 'plain' });
    expect(await lookup('one.example:5000')).toEqual({ kind: 'password', username: 'me', password: 'pass:word' });
    expect(await lookup('two.example')).toMatchObject({ username: 'two' });
    expect(await lookup('docker.io')).toMatchObject({ username: 'hub' });
    expect(await lookup('three.example')).toEqual({ kind: 'refresh-token', refreshToken: 'refresh' });
    for (const none of ['empty.example', 'one.example', 'e.example', '__proto__', 'constructor']) {
      expect(await lookup(none)).toBeUndefined();
    }
  });

  it('has none without a file, and refuses a broken one without quoting it', async () => {
    expect(await lookup('one.example')).toBeUndefined();
    await writeFile(join(directory, 'config.json'), '{"auths": s3cret');
    const error = await lookup('one.example').catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: 'CONFIG_INVALID' });
    expect(JSON.stringify(error) + String(error) + String((error as Error).cause)).not.toContain('s3cret');
    await config({ auths: { 'one.example': { auth: 'bm9jb2xvbg==' } } });
    expect(await failure(lookup('one.example'))).toBe('CONFIG_INVALID');
    await config({ auths: { 'one.example': { auth: base64(':no name') } } });
    expect(await failure(lookup('one.example'))).toBe('CONFIG_INVALID');
    await config([]);
    expect(await failure(lookup('one.example'))).toBe('CONFIG_INVALID');
    await config({ auths: { 'one.example': { auth: base64('me:p') } }, more: 'x'.repeat(1024 * 1024) });
    expect(await failure(lookup('one.example'))).toBe('CONFIG_INVALID');
  });

  it('asks the helper of a registry before the store of all', async () => {
    await config({ credsStore: 'all', credHelpers: { 'one.example': 'one' }, auths: { 'two.example': {} } });
    await helper('one', 'read host; printf \'{"ServerURL":"%s","Username":"u-%s","Secret":"s"}\' "$host" "$host"');
    await helper('all', 'printf \'{"Username":"<token>","Secret":"refresh"}\'');
    expect(await lookup('one.example')).toEqual({ kind: 'password', username: 'u-one.example', password: 's' });
    expect(await lookup('two.example')).toEqual({ kind: 'refresh-token', refreshToken: 'refresh' });
    // Docker's own name for its registry, and an answer without a login.
    await config({ credsStore: 'one' });
    expect(await lookup('docker.io')).toMatchObject({ username: 'u-https://index.docker.io/v1/' });
    await helper('one', 'printf \'{"Username":"","Secret":""}\'');
    expect(await lookup('one.example')).toBeUndefined();
  });

  it('tells a helper without a login from one that fails, and shows no secret', async () => {
    await config({ credsStore: 'h', auths: { 'two.example': { auth: base64('file:p') } } });
    await helper('h', 'echo "credentials not found in native keychain"; exit 1');
    expect(await lookup('one.example')).toBeUndefined();
    expect(await lookup('two.example')).toMatchObject({ username: 'file' });
    for (const script of ['echo s3cret; exit 1', 'echo s3cret >&2; exit 3', 'echo s3cret', 'printf {}']) {
      await helper('h', script);
      const error = await lookup('one.example').catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'CONFIG_INVALID' });
      expect(JSON.stringify(error) + String(error) + String((error as Error).cause)).not.toContain('s3cret');
    }
    for (const name of ['../evil', 'a/b', '-x', 'a b']) {
      await config({ credsStore: name });
      expect(await failure(lookup('one.example'))).toBe('CONFIG_INVALID');
    }
    await config({ credsStore: 'not-installed-anywhere' });
    expect(await failure(lookup('one.example'))).toBe('PROCESS_MISSING');
  });
});
