import { chmod, link, mkdir, mkdtemp, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { materializeContext, openContext } from '@decant/context/node';
import { openOciLayout } from '@decant/oci';
import { describe, expect, it } from 'vitest';

import { BASE, build, exported, finish, linesOf, source, type Bench } from './contract-kit.ts';
import { saveLayout } from './save-layout.ts';

export function outputContract(bench: () => Bench): void {
  describe('output', () => {
    it('is an OCI layout of the same layers', async () => {
      const { workDirectory } = bench();
      const big = 'x'.repeat(3_000_000);
      const { result } = await finish(
        build(bench(), { context: source(`FROM ${BASE}\nCOPY . /c\nCMD ["/bin/sh"]\n`, { small: '1', big }) }),
      );
      const directory = join(workDirectory, `layout:${result.image.slice(7, 19)}`);
      const { digest, layerBytes } = await result.exportLayout(directory);
      await using image = await openOciLayout(directory);
      expect(image.manifestDigest).toBe(digest);
      expect(image.configDigest).toBe(result.image);
      expect(image.config.config?.Cmd).toEqual(['/bin/sh']);
      const { layers } = await exported(bench(), result);
      const read: Buffer[] = [];
      for (const layer of image.layers) {
        const pieces: Uint8Array[] = [];
        // Every digest and diff id is checked on the way.
        for await (const piece of layer.open()) pieces.push(piece);
        read.push(Buffer.concat(pieces));
      }
      expect(read.map((bytes) => bytes.equals(layers[read.indexOf(bytes)]!))).toEqual(layers.map(() => true));
      expect(layerBytes).toBe(layers.reduce((sum, { length }) => sum + length, 0));
      // Nothing but what the image has.
      expect(await readdir(join(directory, 'blobs/sha256'))).toHaveLength(
        new Set(image.layers.map((l) => l.digest)).size + 2,
      );
      await expect(result.exportLayout(directory)).rejects.toMatchObject({ code: 'USAGE' });
      const aborted = join(workDirectory, 'aborted-layout');
      const signal = AbortSignal.abort(new Error('enough'));
      await expect(result.exportLayout(aborted, { signal })).rejects.toThrow('enough');
      expect(await readdir(workDirectory)).not.toContain('aborted-layout');
      expect((await readdir(workDirectory)).filter((name) => name.startsWith('.'))).toEqual([]);
    });

    it('of an archive that is none is refused and leaves nothing', async () => {
      const { workDirectory } = bench();
      const target = join(await mkdtemp(join(workDirectory, 'bad-')), 'layout');
      const garbage = async function* () {
        yield Buffer.alloc(2048, 7);
      };
      await expect(saveLayout(garbage(), target)).rejects.toMatchObject({ code: 'LAYER_INVALID' });
      const empty = async function* () {
        yield Buffer.alloc(1024);
      };
      await expect(saveLayout(empty(), target)).rejects.toMatchObject({ code: 'OCI_INVALID' });
      expect(await readdir(join(target, '..'))).toEqual([]);
    });

    it('of a step is whole when whoever reads it is slow', async () => {
      const lines = 5000;
      const count = `i=0; while [ $i -lt ${lines} ]; do i=$((i+1)); echo n$i; done`;
      const context = source(`FROM ${BASE}\nRUN ${count}\n`);
      const written: string[] = [];
      for await (const event of build(bench(), { cache: 'ignore', context })) {
        if (event.type !== 'log' || !/^n\d+$/.test(event.line)) continue;
        // As a program that is busy with something else until the step has ended.
        if (written.length === 0) for (const end = performance.now() + 3000; performance.now() < end;);
        written.push(event.line);
      }
      expect(written.length).toBe(lines);
      expect(written.findIndex((line, i) => line !== `n${i + 1}`)).toBe(-1);
    });

    // The same list for every driver: whatever the engine thinks of ignore files, it gets what we filtered.
    it('has exactly the files that the context has', async () => {
      const { workDirectory } = bench();
      const root = await mkdtemp(join(workDirectory, 'tree-'));
      for (const name of ['src/pkg', 'logs', 'empty', 'dir.d']) await mkdir(join(root, name), { recursive: true });
      const files = 'a.txt b.log .hidden src/main.go src/main_test.go src/pkg/x.go src/pkg/y.md logs/1.log ünï.txt';
      for (const name of `${files} sp ace`.split(/ (?!ace)/)) await writeFile(join(root, name), name);
      await writeFile(
        join(root, 'Dockerfile'),
        `FROM ${BASE}\nCOPY . /c\nRUN cd /c && find . ! -name .dockerignore | sort\n`,
      );
      await writeFile(
        join(root, '.dockerignore'),
        '*\n!**/*.go\n!*.txt\n!.hidden\n!empty\n!lnk\n!hard\n!sp ace\n**/*_test.go\n',
      );
      await symlink('a.txt', join(root, 'lnk'));
      await link(join(root, 'a.txt'), join(root, 'hard'));
      await chmod(join(root, 'a.txt'), 0o640);
      const context = await openContext({ directory: root });
      const { events } = await finish(
        build(bench(), {
          cache: 'ignore',
          context: {
            dockerfile: context.dockerfile,
            materialize: (directory, options) => materializeContext(context, directory, options),
          },
        }),
      );
      const listed = linesOf(events).filter((line) => line === '.' || line.startsWith('./'));
      expect(listed).toEqual([
        '.',
        './.hidden',
        './a.txt',
        './empty',
        './hard',
        './lnk',
        './sp ace',
        './src',
        './src/main.go',
        './src/pkg',
        './src/pkg/x.go',
        './ünï.txt',
      ]);
    });
  });
}
