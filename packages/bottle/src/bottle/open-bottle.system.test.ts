import { execFile } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import { findProgram, run } from '@decant/core/node';
import { probeJail } from '@decant/jail';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';

import { verifyAudit } from '../audit/verify-audit.ts';
import { makeTestImage } from './testing/test-image.ts';
import { openRealBottle, outputOf } from './testing/real-bottle.ts';

const available =
  (await probeJail()).ok &&
  (await findProgram('busybox')) !== undefined &&
  (await findProgram('mkfs.erofs')) !== undefined;

describe.skipIf(!available)('[backend:bubblewrap] a native bottle', { timeout: 300_000 }, () => {
  let folder: string;
  let image: string;
  let directory: string;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'bottle-real-'));
    image = await makeTestImage(folder);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  beforeEach(async () => {
    directory = await mkdtemp(join(folder, 'bottles-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  test('runs, is fenced, and leaves nothing but its audit', async () => {
    const bottle = await openRealBottle(directory, image, { agent: { env: { MODE: 'fast' } } });
    expect(await outputOf(bottle, ['sh', '-c', 'id -u; echo $MODE; echo $HTTPS_PROXY; echo $SSL_CERT_FILE'])).toEqual({
      exitCode: 0,
      text: expect.stringMatching(/^1000\nfast\nhttp:\/\/\S+:9099\n\/\S+\n$/),
    });
    const trusted = await outputOf(bottle, ['sh', '-c', 'cat "$SSL_CERT_FILE"']);
    expect(trusted.text).toContain('-----BEGIN CERTIFICATE-----');
    const denied = await outputOf(bottle, ['wget', '-q', '-O', '-', 'http://192.0.2.1/']);
    expect(denied.exitCode).not.toBe(0);
    expect(denied.text).toContain('403');
    const outside = join(folder, 'note');
    await writeFile(outside, 'hello');
    await bottle.copyIn(outside, '/home/app/note');
    expect(await outputOf(bottle, ['stat', '-c', '%u', '/home/app/note'])).toMatchObject({ text: '1000\n' });
    await outputOf(bottle, ['touch', '/home/app/made']);
    const layer = join(folder, 'layer.tar');
    await pipeline(bottle.snapshot(), createWriteStream(layer));
    const names = (await run('tar', ['-tf', layer])).stdout.toString().split('\n');
    // What its supervisor put into it is no change of its own.
    expect(names.filter((name) => name !== '' && !name.endsWith('/')).toSorted()).toEqual([
      'home/app/made',
      'home/app/note',
    ]);
    const { audit } = bottle.paths;
    await bottle.stop();
    expect(await readdir(directory)).toEqual(['audit.d']);
    expect(await verifyAudit(audit)).toMatchObject({ sealed: true });
    expect(await readFile(audit, 'utf8')).toContain('"decision":"deny"');
  });

  test('ends with everything in it, and says why', async () => {
    const bottle = await openRealBottle(directory, image);
    const exec = await bottle.exec({ argv: ['sleep', '300'] });
    const exit = exec.exit.catch((error: unknown) => error);
    await bottle.stop('wall-time', 'Its wall time is over.');
    await exit;
    expect(await bottle.ended).toMatchObject({ reason: 'wall-time' });
    await expect(bottle.exec({ argv: ['id'] })).rejects.toMatchObject({ code: 'BOTTLE_ENDED' });
  });

  test('ends when its sidecar is killed', async () => {
    const bottle = await openRealBottle(directory, image);
    const pid = Number(/^\/proc\/(\d+)\//.exec(bottle.plan.endpoints!.networkNamespace)?.[1]);
    process.kill(pid, 'SIGKILL');
    expect(await bottle.ended).toMatchObject({ reason: 'fence-ended' });
    expect(await readdir(directory)).toEqual(['audit.d']);
  });

  test('ends when its audit can be written no more, and what was written stays whole', async () => {
    const small = join(folder, 'small');
    await mkdir(small);
    await run('mount', ['-t', 'tmpfs', '-o', 'size=64m', 'tmpfs', small]);
    try {
      const bottle = await openRealBottle(small, image);
      await run('sh', ['-c', 'cat /dev/zero > "$1"; test -s "$1"', 'sh', join(small, 'filler')], { okCodes: [0] });
      // What is denied is recorded too: as long as it is answered, the record has room.
      const knock = 'i=0; while [ $i -lt 3000 ]; do wget -q -O - http://192.0.2.1/; i=$((i+1)); done';
      const knocking = await bottle.exec({ argv: ['sh', '-c', knock] });
      knocking.stdout.resume();
      knocking.stderr.resume();
      knocking.exit.catch(() => undefined);
      expect(await bottle.ended).toMatchObject({
        reason: 'fence-ended',
        message: expect.stringMatching(/could not be recorded: No space is left/),
      });
      expect((await readdir(small)).toSorted()).toEqual(['audit.d', 'filler']);
      expect(await verifyAudit(bottle.paths.audit)).toMatchObject({ sealed: false });
    } finally {
      await run('umount', ['--lazy', small]);
    }
  });

  test('killed at every acquisition, it leaves nothing once it was collected, and others run on', async () => {
    const worker = fileURLToPath(new URL('testing/killed-bottles-worker.ts', import.meta.url));
    // prctl(PR_SET_CHILD_SUBREAPER): what outlives its parents is left to the worker, which then sees it.
    const subreaper = 'syscall($ARGV[0], 36, 1, 0, 0, 0) == 0 or die; shift; exec @ARGV';
    const prctl = process.arch === 'arm64' ? '167' : '157';
    const node = [process.execPath, '--conditions=@decant/source', '--disable-warning=ExperimentalWarning', worker];
    const { stdout } = await promisify(execFile)('perl', ['-e', subreaper, prctl, ...node, directory, image], {
      maxBuffer: 1024 * 1024,
      timeout: 280_000,
    });
    const report = JSON.parse(stdout) as Record<string, unknown> & { points: string[]; collectMs: number };
    expect(report.points.length).toBeGreaterThanOrEqual(14);
    expect(report).toMatchObject({
      outcomes: report.points.map((point) => `${point} SIGKILL`),
      before: report.points.length + 1,
      collected: report.points.length,
      running: ['live'],
      failed: [],
      second: 0,
      processes: [],
      mounts: 0,
      entries: ['audit.d', 'live', 'live.jsonl'],
      live: { exitCode: 0, text: 'still here\n' },
      after: ['audit.d'],
    });
  });
});
