import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { buildError, registryOf } from './build-error.ts';
import { withoutCacheMark } from './cache-mark.ts';
import { throughPipe } from './confine.ts';
import { processesWith } from './contract-kit.ts';
import { engineStream } from './engine-stream.ts';
import { startJanitor } from './janitor.ts';
import { ClassicReader } from './output/classic.ts';
import type { OutputReader } from './output/reader.ts';
import { writeAuthFile, writeDockerLogins } from './registry-logins.ts';
import { runEngine } from './run-engine.ts';
import { maskedTexts, maskText, prepareSecrets } from './secrets.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "decant engine's parts-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

describe('secrets', () => {
  it('become flags and variables, never values in flags', async () => {
    const file = join(directory, 'tok');
    await writeFile(file, 'from-a-file\n');
    const prepared = await prepareSecrets([
      { id: 'a', file },
      { id: 'b', value: 'from-a-variable' },
    ]);
    expect(prepared.flags).toEqual([`id=a,src=${file}`, 'id=b,type=env,env=DECANT_SECRET_1']);
    expect(prepared.env).toEqual({ DECANT_SECRET_1: 'from-a-variable' });
    expect(prepared.masked).toEqual(['from-a-variable', 'from-a-file']);
    await writeFile(file, Buffer.alloc(500 * 1024 + 1));
    await expect(prepareSecrets([{ id: 'a', file }])).rejects.toMatchObject({ code: 'USAGE', details: { id: 'a' } });
    await expect(prepareSecrets([{ id: 'b', value: 'x'.repeat(100 * 1024 + 1) }])).rejects.toMatchObject({
      code: 'USAGE',
    });
  });

  it.each([
    ['an id that would be split', [{ id: 'a,src=/etc/shadow', value: 'x' }]],
    ['no id', [{ id: '', value: 'x' }]],
    ['a value with a NUL', [{ id: 'a', value: 'x\0y' }]],
    [
      'an id given twice',
      [
        { id: 'a', value: 'x' },
        { id: 'a', value: 'y' },
      ],
    ],
    ['a file that is not there', [{ id: 'a', file: '/nonexistent/secret' }]],
  ])('are refused with %s', async (_, secrets) => {
    await expect(prepareSecrets(secrets)).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('are masked as a whole and line by line, the longest first', () => {
    const masked = maskedTexts(['-----BEGIN-----\nabcdefgh\nxy\n', 'ab', 'abcdefgh12', '   ']);
    expect(maskText('1 abcdefgh12 2 abcdefgh 3 -----BEGIN----- xy ab', masked)).toBe('1 *** 2 *** 3 *** xy ab');
    expect(maskText('a.c', maskedTexts(['a.c', 'abc']))).toBe('***');
    expect(maskText('axc', maskedTexts(['a.c']))).toBe('axc');
  });
});

describe('logins', () => {
  const login = { username: 'me', password: 'secret' };
  const auth = Buffer.from('me:secret').toString('base64');

  it('for docker add to what the user has, whose store of passwords is passed by', async () => {
    const own = join(directory, 'own');
    await mkdir(join(own, 'contexts'), { recursive: true });
    const config = { auths: { 'old.example': { auth: 'b2xk' } }, credsStore: 'desktop', currentContext: 'other' };
    await writeFile(join(own, 'config.json'), JSON.stringify(config));
    const target = join(directory, 'docker');
    await writeDockerLogins(target, { 'reg.example:5000': login, 'docker.io': login }, { DOCKER_CONFIG: own });
    const written = JSON.parse(await readFile(join(target, 'config.json'), 'utf8')) as object;
    expect(written).toEqual({
      ...config,
      auths: { ...config.auths, 'reg.example:5000': { auth }, 'https://index.docker.io/v1/': { auth } },
      credHelpers: { 'reg.example:5000': '', 'https://index.docker.io/v1/': '' },
    });
    expect((await stat(join(target, 'config.json'))).mode & 0o777).toBe(0o600);
    expect((await stat(join(target, 'contexts'))).isDirectory()).toBe(true);
    expect((await stat(target)).mode & 0o777).toBe(0o700);
  });

  it('for buildah and podman add to what the user has', async () => {
    const home = join(directory, 'home');
    await mkdir(join(home, '.docker'), { recursive: true });
    await writeFile(join(home, '.docker/config.json'), JSON.stringify({ auths: { 'old.example': { auth: 'b2xk' } } }));
    const env = { HOME: home, REGISTRY_AUTH_FILE: join(home, 'broken') };
    await writeFile(join(home, 'broken'), 'not json');
    const file = await writeAuthFile(join(directory, 'auth.json'), { 'docker.io': login }, env);
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({
      auths: { 'old.example': { auth: 'b2xk' }, 'docker.io': { auth } },
    });
    expect((await stat(file)).mode & 0o777).toBe(0o600);
  });

  it('for buildah and podman come before what the user keeps, whose nearest file comes first', async () => {
    const home = await mkdtemp(join(directory, 'helpers-'));
    await mkdir(join(home, '.docker'));
    const helpers = { 'reg.example': 'helper', 'other.example': 'helper' };
    const far = { auths: { 'twice.example': { auth: 'ZmFy' } }, credHelpers: helpers };
    await writeFile(join(home, '.docker/config.json'), JSON.stringify(far));
    await writeFile(join(home, 'near'), JSON.stringify({ auths: { 'twice.example': { auth: 'bmVhcg==' } } }));
    const env = { HOME: home, REGISTRY_AUTH_FILE: join(home, 'near') };
    const file = await writeAuthFile(join(home, 'auth.json'), { 'reg.example': login }, env);
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({
      auths: { 'twice.example': { auth: 'bmVhcg==' }, 'reg.example': { auth } },
    });
    // A helper of the same registry would be asked instead.
    const { credHelpers } = JSON.parse(await readFile(file, 'utf8')) as { credHelpers: object };
    expect(credHelpers).toEqual({ 'other.example': 'helper' });
  });

  it.each([
    [{ 'https://x': login }],
    [{ 'a/b': login }],
    [{ '': login }],
    [{ 'a.example': { username: 'a:b', password: 'x' } }],
    [{ 'a.example': { username: '', password: 'x' } }],
    [{ 'a.example': { username: 'a', password: 'x\ny' } }],
  ])('that cannot be sent are refused: %j', async (logins) => {
    await expect(writeAuthFile(join(directory, 'never'), logins, {})).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('that a registry does not take are an error of their own', () => {
    const report = {
      kind: 'base',
      image: 'reg.example/a:1',
      reason: 'unexpected status: 401 Unauthorized',
      lastLines: [],
    } as const;
    expect(buildError('e', report, '/x')).toMatchObject({
      code: 'UNAUTHORIZED',
      message: expect.stringMatching(/^Not authorised for reg\.example: /),
    });
    expect(buildError('e', { ...report, reason: 'manifest unknown' }, '/x').code).toBe('BUILD_BASE_UNAVAILABLE');
    expect(['a', 'a/b', 'localhost/a', 'h:1/a', 'h.x/a/b'].map(registryOf)).toEqual([
      'docker.io',
      'docker.io',
      'localhost',
      'h:1',
      'h.x',
    ]);
  });
});

describe('the janitor', () => {
  const gone = async (path: string) => {
    for (let attempt = 0; attempt < 600; attempt++) {
      if (
        await stat(path).then(
          () => false,
          () => true,
        )
      )
        return true;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return false;
  };

  it('does nothing when it is told that all is done', async () => {
    const root = await mkdtemp(join(directory, 'kept '));
    await startJanitor({ root, env: process.env })[Symbol.asyncDispose]();
    expect((await stat(root)).isDirectory()).toBe(true);
  });

  it('removes directory and containers when its process is gone, whatever their names', async () => {
    const root = await mkdtemp(join(directory, "gone $(x) 'y' "));
    const records = await mkdtemp(join(directory, 'records '));
    const [mine, other] = ['a'.repeat(64), 'b'.repeat(64)];
    for (const [id, mark] of [
      [mine, 'decant-build-1-2-00000000'],
      [other, 'decant-build-1-2-00000001'],
    ] as const) {
      await mkdir(join(records, id, 'userdata'), { recursive: true });
      await writeFile(join(records, id, 'userdata/buildah.json'), `{"Secrets":["id=${mark},src=/dev/null"]}`);
    }
    const remove = ['/bin/sh', '-c', 'cd "$0" && rm -r "$@"', records];
    const task = {
      root,
      env: process.env,
      containers: { records, mark: 'decant-build-1-2-00000000', remove, enter: [] },
    };
    const script = `import { startJanitor } from ${JSON.stringify(new URL('janitor.ts', import.meta.url).href)};
      startJanitor({ ...${JSON.stringify(task)}, env: process.env });
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), 100);`;
    const { run } = await import('@decant/core/node');
    await run(process.execPath, ['--conditions=@decant/source', '--input-type=module', '--eval', script]).catch(
      () => undefined,
    );
    expect(await gone(root)).toBe(true);
    expect(await gone(join(records, mine))).toBe(true);
    expect((await stat(join(records, other))).isDirectory()).toBe(true);
  });
});

describe('a janitor whose process ends by force', () => {
  it.each(['SIGKILL to its whole group', 'SIGTERM to the janitor first'])('cleans up after %s', async (how) => {
    const root = await mkdtemp(join(directory, 'forced-'));
    const script = `import { startJanitor } from ${JSON.stringify(new URL('janitor.ts', import.meta.url).href)};
      startJanitor({ root: ${JSON.stringify(root)}, env: process.env });
      console.log('ready');
      setInterval(() => undefined, 1000);`;
    const args = ['--conditions=@decant/source', '--input-type=module', '--eval', script];
    const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = once(child, 'exit');
    await once(child.stdout, 'data');
    if (how.startsWith('SIGTERM')) {
      const [line] = await processesWith(`decant-janitor ${root}`);
      for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.kill(Number.parseInt(line!, 10), name);
    }
    process.kill(-child.pid!, 'SIGKILL');
    await ended;
    await expect.poll(() => existsSync(root)).toBe(false);
    await expect.poll(() => processesWith(`decant-janitor ${root}`)).toEqual([]);
  });
});

describe('the run of an engine', () => {
  const reader: OutputReader = {
    line: (line) => [
      { type: 'log', stage: 'build', stream: 'stdout', line },
      { type: 'warning', stage: 'build', message: `of ${line}` },
    ],
    failure: () => expect.fail('nobody asks'),
  };
  const start = (script: string, signal?: AbortSignal) =>
    runEngine(['/bin/sh', '-c', script], reader, { env: process.env, killAfterMs: 1000, masked: ['hunter22'], signal });

  it('shows no secret in a line or in a warning, and gives its exit code', async () => {
    const events = start('echo "it is hunter22."; exit 7');
    expect((await events.next()).value).toMatchObject({ line: 'it is ***.' });
    expect((await events.next()).value).toMatchObject({ message: 'of it is ***.' });
    expect(await events.next()).toEqual({ done: true, value: 7 });
  });

  // What is not ended sleeps for longer than a test may take.
  it('ends with an abort, and when it is left', async () => {
    const script = 'echo go; sleep 300 & sleep 300';
    const controller = new AbortController();
    const aborted = async () => {
      for await (const _ of start(script, controller.signal)) controller.abort(new Error('enough'));
    };
    await expect(aborted()).rejects.toThrow('enough');
    for await (const event of start(script)) if (event.type === 'log') break;
  });
});

describe('the output of an engine', () => {
  const gather = async (stream: AsyncIterable<Uint8Array>) => {
    let text = '';
    for await (const piece of stream) text += Buffer.from(piece).toString();
    return text;
  };
  const sh = (script: string) => throughPipe(['/bin/sh', '-c', script]);

  it('can be opened by name, and its status counts', async () => {
    const { env } = process;
    expect(await gather(engineStream(await sh('echo a > /dev/stdout; echo b >&2'), { env }))).toBe('a\n');
    await expect(gather(engineStream(await sh('echo a; echo why >&2; exit 3'), { env }))).rejects.toMatchObject({
      code: 'PROCESS_FAILED',
      details: { exitCode: 3, lastLines: 'why' },
    });
    await expect(gather(engineStream(['/nonexistent'], { env }))).rejects.toMatchObject({ code: 'PROCESS_MISSING' });
    const wordy = engineStream(await sh('head -c 100000 /dev/zero | tr "\\0" x >&2; echo y >&2; exit 3'), { env });
    await expect(gather(wordy)).rejects.toMatchObject({
      details: { lastLines: expect.stringMatching(/^x{4094}y$/) as string },
    });
    const made = join(directory, 'made');
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(gather(engineStream(['/bin/sh', '-c', 'touch "$0"', made], { env, signal }))).rejects.toThrow(
      'enough',
    );
    expect(existsSync(made)).toBe(false);
  });

  it('ends with an abort, and when it is left', async () => {
    const { env } = process;
    // It writes nothing more, and so would not notice by itself; it ends within this test only when it is ended.
    const script = await sh('echo y; sleep 300 & sleep 300');
    const controller = new AbortController();
    const aborted = async () => {
      for await (const _ of engineStream(script, { env, signal: controller.signal }))
        controller.abort(new Error('enough'));
    };
    await expect(aborted()).rejects.toThrow('enough');
    for await (const piece of engineStream(script, { env })) if (piece.length > 0) break;
  });

  it('of the classic builder is counted without marks', () => {
    const reader = withoutCacheMark(new ClassicReader(), 2);
    const lines = [
      'Step 1/6 : FROM a',
      'Step 2/6 : ARG DECANT_CACHE_MARK=x',
      ' ---> Running in 0123456789ab',
      'Step 3/6 : RUN b',
      'Step 4/6 : FROM c',
      'Step 5/6 : ARG DECANT_CACHE_MARK=x',
      'Step 6/6 : RUN d',
    ];
    const seen = lines
      .flatMap((line) => reader.line(line, 'stdout'))
      .flatMap((event) => (event.type === 'log' ? [event.line] : []));
    expect(seen).toEqual(['[1/4] FROM a', '[2/4] RUN b', '[3/4] FROM c', '[4/4] RUN d']);
  });
});
