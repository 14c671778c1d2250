import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';

/** Interpreter of the distribution: the one in PATH may be another that nobody but its owner may execute. */
const PYTHON = '/usr/bin/python3';
/** Parts of the standard library that no attack needs. */
const LEFT_OUT =
  /\/(?:test|tests|idlelib|lib2to3|ensurepip|tkinter|pydoc_data|distutils|__pycache__|dist-packages|config-3[^/]*)$/;

export function canMakeAttackImage(): boolean {
  return existsSync(PYTHON) && existsSync('/usr/bin/busybox');
}

/**
 * Writes an ext4 image with busybox, this machine's own python3 and the attacks of the suite; about 100 MB, most of it holes. Its user is `agent`,
 * 1000.
 */
export function makeAttackImage(folder: string): { readonly file: string; readonly filesystem: 'ext4' } {
  const root = join(folder, 'root');
  for (const path of [
    'bin',
    'etc/ssl/certs',
    'proc',
    'sys',
    'dev',
    'tmp',
    'root',
    'run',
    'var/tmp',
    'home/agent',
    'attack',
    'usr/bin',
    'usr/lib',
    'lib64',
  ]) {
    mkdirSync(join(root, path), { recursive: true });
  }
  for (const path of ['tmp', 'var/tmp']) chmodSync(join(root, path), 0o1777);
  copyPython(root);
  cpSync('/usr/bin/busybox', join(root, 'bin/busybox'));
  for (const name of ['sh', 'id', 'cat', 'ls', 'sleep', 'true', 'env', 'mount', 'ln', 'mkdir', 'chmod', 'rm', 'mv'])
    symlinkSync('busybox', join(root, 'bin', name));
  cpSync(join(import.meta.dirname, 'attack.py'), join(root, 'attack/attack.py'));
  writeFileSync(join(root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\nagent:x:1000:1000::/home/agent:/bin/sh\n');
  writeFileSync(join(root, 'etc/group'), 'root:x:0:\nagent:x:1000:\n');
  writeFileSync(join(root, 'etc/ssl/certs/ca-certificates.crt'), '');
  execFileSync('chown', ['-R', '0:0', root]);
  execFileSync('chown', ['1000:1000', join(root, 'home/agent')]);
  const file = join(folder, 'attack.ext4');
  execFileSync('mkfs.ext4', ['-q', '-F', '-d', root, file, '160M']);
  return { file, filesystem: 'ext4' };
}

function copyPython(root: string): void {
  const program = realpathSync(PYTHON);
  const library = execFileSync(PYTHON, ['-c', 'import os; print(os.path.dirname(os.__file__))'], {
    encoding: 'utf8',
  }).trim();
  const copy = (from: string) => {
    mkdirSync(dirname(join(root, from)), { recursive: true });
    cpSync(from, join(root, from), { recursive: true, dereference: true, filter: (path) => !LEFT_OUT.test(path) });
  };
  copy(program);
  symlinkSync(program, join(root, PYTHON));
  copy(library);
  const loaded = join(library, 'lib-dynload');
  const objects = [program, ...readdirSync(loaded).map((name) => join(loaded, name))];
  const libraries = execFileSync('ldd', objects, { encoding: 'utf8' }).matchAll(/(?:=> |^\s+)(\/\S+)/gm);
  for (const path of new Set([...libraries].map(([, path]) => path ?? ''))) copy(path);
}
