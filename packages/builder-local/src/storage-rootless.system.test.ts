import { chown, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { busyboxArchive, goneWithin, processesWith } from './contract-kit.ts';

const [buildah, podman, busybox, unshare, newuidmap] = await Promise.all(
  ['buildah', 'podman', 'busybox', 'unshare', 'newuidmap'].map(findProgram),
);
const engines = [
  { name: 'buildah', probe: 'probeBuildah', there: buildah !== undefined },
  { name: 'podman', probe: 'probePodman', there: podman !== undefined },
];
/** An ordinary user, with subordinate ids that exist in the test's mount namespace only. */
const USER = 65_534;
const index = new URL('index.ts', import.meta.url);
const asUser = ['--reuid', String(USER), '--regid', String(USER), '--clear-groups'];
const readable = await run('setpriv', [
  ...asUser,
  process.execPath,
  '--eval',
  `fs.readFileSync('${index.pathname}')`,
]).then(
  () => true,
  () => false,
);
const tools = busybox !== undefined && unshare !== undefined && newuidmap !== undefined;
const available = process.getuid?.() === 0 && tools && readable;

describe.each(engines)('[backend:$name-rootless] driver', { timeout: 300_000 }, ({ probe, there }) => {
  let directory = '';

  beforeAll(async () => {
    if (!available || !there) return;
    directory = await mkdtemp(join(tmpdir(), 'decant-rootless-'));
    await busyboxArchive(directory);
    await writeFile(join(directory, 'ids'), `${USER}:200000:65536\n`);
    for (const name of ['home', 'work', 'run']) {
      await mkdir(join(directory, name), { mode: 0o700 });
      await chown(join(directory, name), USER, USER);
    }
    await chown(directory, USER, USER);
  });
  afterAll(() => directory !== '' && rm(directory, { recursive: true, force: true, maxRetries: 3 }));

  const script = (body: string) => `
    import { ${probe} } from ${JSON.stringify(index.href)};
    const storageRoot = process.cwd() + '/home/root';
    const [found] = await ${probe}({ storageRoot, runRoot: process.cwd() + '/home/run', storageDriver: 'overlay' });
    if (!found.usable) throw new Error(found.reason);
    const { driver } = found;
    const requestOf = (text) => ({
      workDirectory: process.cwd() + '/work',
      context: { dockerfile: { displayPath: 'Dockerfile', bytes: new TextEncoder().encode(text) }, materialize: async () => {} },
    });
    const lines = [];
    const finish = async (events) => {
      for (;;) {
        const { done, value } = await events.next();
        if (done) return value;
        if (value.type === 'log') lines.push(value.line);
      }
    };
    ${body}`;

  const runAsUser = (body: string) => {
    const mounts = 'mount --bind "$0/ids" /etc/subuid && mount --bind "$0/ids" /etc/subgid && cd "$0" && exec "$@"';
    const node = [process.execPath, '--conditions=@decant/source', '--input-type=module', '--eval', script(body)];
    return run(unshare!, ['--mount', 'sh', '-c', mounts, directory, 'setpriv', ...asUser, ...node], {
      env: { PATH: process.env['PATH'], HOME: join(directory, 'home'), XDG_RUNTIME_DIR: join(directory, 'run') },
      timeoutMs: 240_000,
    });
  };

  it.skipIf(!available || !there)('builds, exports and leaves its work directory empty', async () => {
    const { stdout } = await runAsUser(`
      await driver.importBase({ tarFile: 'base.tar', reference: 'rootless-base' });
      const result = await finish(driver.build(requestOf('FROM rootless-base\\nRUN echo "I am $(id -u 2>/dev/null || echo root)"; echo x > /x\\n')));
      const none = await finish(driver.build({ ...requestOf('FROM rootless-base\\nRUN cat /proc/net/dev | while IFS=: read name rest; do echo interface $name; done\\n'), network: 'none' }));
      const { file } = await result.exportImage(process.cwd() + '/work');
      const { statSync, readdirSync } = await import('node:fs');
      const size = statSync(file).size;
      await result[Symbol.asyncDispose]();
      console.log(JSON.stringify({ rootless: driver.capabilities.rootless, size, left: readdirSync('work'), lines, image: none.image }));`);
    const answer = JSON.parse(stdout.toString()) as {
      rootless: boolean;
      size: number;
      left: string[];
      lines: string[];
    };
    expect(answer).toMatchObject({ rootless: true, left: [], lines: expect.arrayContaining(['interface lo']) });
    // The header has two lines, with bars.
    const interfaces = answer.lines.filter((line) => line.startsWith('interface ') && !line.includes('|'));
    expect(interfaces).toEqual(['interface lo']);
    expect(answer.size).toBeGreaterThan(100_000);
  });

  it.skipIf(!available || !there)('ends everything when it is aborted and when it is killed', async () => {
    const mark = `6${Date.now() % 1e6}.${process.pid}`;
    const slow = `requestOf('FROM rootless-base\\nRUN echo go; sleep ${mark} & sleep ${mark}\\n')`;
    const { stdout } = await runAsUser(`
      const controller = new AbortController();
      try {
        for await (const event of driver.build(${slow}, { signal: controller.signal })) {
          if (event.line === 'go') controller.abort(new Error('enough'));
        }
      } catch (error) { console.log(error.message, await driver.cleanUpLeftovers()); }`);
    expect(stdout.toString()).toBe('enough 0\n');
    const killed = runAsUser(
      `for await (const event of driver.build(${slow})) if (event.line === 'go') process.kill(process.pid, 9);`,
    );
    await expect(killed).rejects.toMatchObject({ details: { signalName: 'SIGKILL' } });
    expect(await goneWithin(60_000, () => processesWith(`sleep ${mark}`))).toEqual([]);
    expect(await goneWithin(60_000, () => readdir(join(directory, 'work')))).toEqual([]);
    expect(await goneWithin(60_000, () => processesWith(`decant-janitor ${directory}`))).toEqual([]);
    const after = await runAsUser('console.log(await driver.cleanUpLeftovers());');
    expect(after.stdout.toString()).toBe('0\n');
  });
});
