import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, readdir, readFile, rmdir, utimes, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

import { MIB } from '@decant/core';
import { processNamespace, processStart } from '@decant/core/node';
import { afterEach, describe, expect, test } from 'vitest';

import { missingControllers, openControlGroup, removeControlGroups } from './cgroup.ts';

const available = process.getuid?.() === 0 && (await missingControllers()).length === 0;
const LIMITS = { memoryBytes: 64 * MIB, processes: 17, cpus: 0.5 };

describe.skipIf(!available)('[backend:native] control groups', () => {
  const made: string[] = [];
  afterEach(async () => {
    for (const path of made.splice(0)) await rmdir(path).catch(() => undefined);
  });

  test('have the limits that were asked for, in either generation, and go', async () => {
    const group = await openControlGroup(LIMITS);
    const folders = group.joinFiles.map((file) => dirname(file));
    const said = async (name: string) => {
      const texts = await Promise.all(folders.map((folder) => readFile(join(folder, name), 'utf8').catch(() => '')));
      return texts.find((text) => text !== '')?.trim();
    };
    expect((await said('memory.limit_in_bytes')) ?? (await said('memory.max'))).toBe(String(64 * MIB));
    // Not every kernel counts swap.
    const swap = { old: await said('memory.memsw.limit_in_bytes'), new: await said('memory.swap.max') };
    expect([undefined, String(64 * MIB)]).toContain(swap.old);
    expect([undefined, '0']).toContain(swap.new);
    expect(await said('pids.max')).toBe('17');
    const quota = await said('cpu.cfs_quota_us');
    expect(quota === undefined ? await said('cpu.max') : `${quota} ${await said('cpu.cfs_period_us')}`).toBe(
      '50000 100000',
    );
    await group[Symbol.asyncDispose]();
    for (const folder of folders) await expect(access(folder)).rejects.toMatchObject({ code: 'ENOENT' });
  });

  test('of processes that are gone are removed, those of living ones and of other process namespaces not', async () => {
    await using group = await openControlGroup(LIMITS);
    const parent = dirname(dirname(group.joinFiles[0]!));
    const [here, start] = [await processNamespace(), await processStart(process.pid)];
    const mark = process.pid.toString(16).padStart(7, '0');
    const names = {
      gone: `decant-${here}-${process.pid}-1-${mark}a`,
      living: `decant-${here}-${process.pid}-${start}-${mark}b`,
      elsewhere: `decant-1-${process.pid}-1-${mark}c`,
      forgotten: `decant-1-${process.pid}-1-${mark}d`,
      another: `decant-${mark}`,
    };
    for (const name of Object.values(names)) {
      made.push(join(parent, name));
      await mkdir(join(parent, name));
    }
    const twoDaysAgo = Date.now() / 1000 - 2 * 24 * 60 * 60;
    await utimes(join(parent, names.forgotten), twoDaysAgo, twoDaysAgo);
    await removeControlGroups();
    const left = new Set(await readdir(parent));
    const stays = Object.entries(names).flatMap(([what, name]) => (left.has(name) ? [what] : []));
    expect(stays).toEqual(['living', 'elsewhere', 'another']);
    expect(left).toContain(basename(dirname(group.joinFiles[0]!)));
  });

  test('in which something was killed that stood still let it end', async () => {
    await using group = await openControlGroup(LIMITS);
    // Version 2 lets what is killed end by itself.
    if (!group.freezer!.file.endsWith('freezer.state')) return;
    const start = async () => {
      const child = spawn('sleep', ['600'], { stdio: 'ignore' });
      await once(child, 'spawn');
      return { child, ended: once(child, 'exit') };
    };
    // Whoever makes a group on this machine clears up after this one as soon as it has ended.
    const [maker, member] = [await start(), await start()];
    const { pid } = maker.child;
    const name = `decant-${await processNamespace()}-${pid}-${await processStart(pid!)}-0123abcd`;
    const folder = join(dirname(dirname(group.freezer!.file)), name);
    made.push(folder);
    await mkdir(folder);
    await writeFile(join(folder, 'cgroup.procs'), String(member.child.pid));
    await writeFile(join(folder, 'freezer.state'), 'FROZEN');
    await expect.poll(() => readFile(join(folder, 'freezer.state'), 'utf8')).toBe('FROZEN\n');
    member.child.kill('SIGKILL');
    maker.child.kill('SIGKILL');
    await maker.ended;
    await removeControlGroups();
    expect(await member.ended).toEqual([null, 'SIGKILL']);
    const gone = async () => {
      await removeControlGroups();
      return await access(folder).then(
        () => false,
        () => true,
      );
    };
    await expect.poll(gone).toBe(true);
  });
});
