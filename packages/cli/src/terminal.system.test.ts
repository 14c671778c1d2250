import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { findProgram, run } from '@decant/core/node';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

import { writeBusyboxLayout } from './busybox-layout.fixture.ts';
import { DECANT, startDecant } from './decant-process.fixture.ts';

const available =
  (await findProgram('tmux')) !== undefined &&
  (await findProgram('busybox')) !== undefined &&
  (await findProgram('bwrap')) !== undefined &&
  (await findProgram('nbdfuse')) !== undefined &&
  process.getuid?.() === 0;

describe.skipIf(!available)('[backend:tmux] in a terminal', () => {
  let folder: string;
  let source: string;
  /** A server of our own, so that no other session is touched. */
  const server = ['-L', `decant-test-${process.pid}`, '-f', '/dev/null'];
  const tmux = async (...args: string[]) =>
    (await run('tmux', [...server, ...args], { timeoutMs: 120_000 })).stdout.toString('utf8');
  /** What the terminal shows; with `-e` also its colours. */
  const shown = async (...flags: string[]) =>
    (await tmux('capture-pane', '-p', '-J', ...flags, '-t', 'main')).trimEnd();
  const see = (expected: string | RegExp) =>
    vi.waitFor(async () => expect(await shown()).toMatch(expected), { timeout: 120_000, interval: 50 });
  const type = (line: string) => tmux('send-keys', '-t', 'main', line, 'Enter');
  /** Runs a command on an empty screen, which is empty at once: what is looked for must not be that of the last command. */
  const enter = async (command: string) => {
    await tmux('send-keys', '-R', '-t', 'main');
    await type(`clear; ${command}; echo END $?`);
  };

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'decant-tmux-'));
    await writeBusyboxLayout(join(folder, 'layout'));
    source = `oci:${join(folder, 'layout')}`;
    await tmux('new-session', '-d', '-s', 'main', '-x', '60', '-y', '40', 'env', '-u', 'NO_COLOR', 'PS1=> ', 'sh');
    // Short enough not to wrap.
    await type(`export DECANT_HOME=${join(folder, 'home')} SOURCE=${source}`);
    await type(`decant() { ${DECANT.join(' ')} "$@"; }; clear`);
  });
  afterAll(async () => {
    await tmux('kill-server').catch(() => undefined);
    await rm(folder, { recursive: true, force: true });
  });

  test('what is over stays, coloured and within the line; what was redrawn is gone', async () => {
    await enter('decant image import $SOURCE -n box --streaming');
    await see(/END 0\n>$/);
    const lines = (await shown()).split('\n');
    expect(lines).toEqual([
      expect.stringMatching(/^✓ reading layers: /),
      expect.stringMatching(/^✓ laying out the filesystem: /),
      expect.stringMatching(/^✓ uploading what is new: of \d+ chunks, /),
      // The id does not fit.
      expect.stringMatching(/^✓ verifying and admitting: cas-v1:[0-9a-f]+…$/),
      expect.stringMatching(/^box:latest {2}cas-v1:[0-9a-f]{64}$/),
      expect.stringMatching(/^ {2}.* of content on a /),
      expect.stringMatching(/^ {2}\d+ chunks: /),
      expect.stringMatching(/^ {2}.*: build 0 ms, layout /),
      'END 0',
      '>',
    ]);
    expect(lines.filter((line) => line.startsWith('✓') && line.length > 60)).toEqual([]);
    // oxlint-disable-next-line no-control-regex -- colours of the terminal
    expect(await shown('-e')).toMatch(/\u001B\[32m✓/);
  });

  test('no colours when they are not wanted', async () => {
    await enter('NO_COLOR=1 decant image import $SOURCE -n box --streaming');
    await see(/END 0$/m);
    // oxlint-disable-next-line no-control-regex -- colours of the terminal
    expect(await shown('-e')).not.toMatch(/\u001B\[/);
  });

  test('a command in an image reads what is typed; Ctrl-C ends it', async () => {
    await enter('decant run box -- sh -c "echo ready; read -r word; echo got \\$word"');
    await see(/^ready$/m);
    await type('plum');
    await see(/^got plum\nEND 0$/m);
    await enter('decant run box -- sh -c "echo ready; sleep 600"');
    await see(/^ready$/m);
    await tmux('send-keys', '-t', 'main', 'C-c');
    await see(/END 130$/m);
    // Keys are for the command: what it makes of them is its own.
    await type(
      'clear; decant run box -- sh -c "trap \'echo caught; exit 3\' INT; echo ready; while :; do sleep 0.1; done"; echo END $?',
    );
    await see(/^ready$/m);
    await tmux('send-keys', '-t', 'main', 'C-c');
    await see(/caught\nEND 3$/m);
    // What goes elsewhere stays apart.
    await type(`clear; decant run box -- sh -c "echo out; echo err >&2" 2>${join(folder, 'errors')}; echo END $?`);
    await see(/^out\nEND 0$/m);
    expect(await readFile(join(folder, 'errors'), 'utf8')).toBe('err\n');
  });

  test(
    'an agent has the terminal; what attaches to a detached one leaves by ctrl-p ctrl-q, and it goes on',
    { timeout: 900_000 },
    async () => {
      const ask = 'stty size; read -r word; echo got \\$word; sleep 600';
      await enter('decant bottle run --image box -- sh -c "echo ready; read -r word; echo got \\$word; exit 4"');
      await see(/^ready$/m);
      await type('fig');
      await see(/^got fig\nEND 4$/m);
      await enter(`decant bottle run -d -t --image box pear -- sh -c "${ask}"`);
      await see(/^pear\n.*END 0$/ms);
      await enter('decant bottle attach pear');
      await see(/^\d+ \d+$/m);
      await type('plum');
      await see(/^got plum$/m);
      await tmux('send-keys', '-t', 'main', 'C-p', 'C-q');
      await see(/^left pear; it goes on\nEND 0$/m);
      // The terminal is as it was: a line is edited and shown again.
      await enter('decant bottle exec -t pear -- sh -c "stty size; exit 3"');
      await see(/^40 60\n+END 3$/m);
      await enter('decant bottle attach pear');
      await see(/^got plum$/m);
      await tmux('send-keys', '-t', 'main', 'C-c');
      await see(/END 130$/m);
      // What was attached ends with the agent, and the bottle soon after it.
      await enter('until decant bottle ls 2>&1 | grep "There are no bottles"; do sleep 0.2; done');
      await see(/There are no bottles.*END 0$/ms);
    },
  );

  test('login asks for the key and shows nothing of it', async () => {
    const data = join(folder, 'server');
    const service = startDecant(['serve', '--port', '0', '--data', data], { DECANT_HOME: join(folder, 'unused') });
    try {
      await vi.waitFor(() => expect(service.output.stdout.split('\n').length).toBeGreaterThan(2), { timeout: 120_000 });
      const [url = '', key = ''] = service.output.stdout.split('\n');
      await enter(`DECANT_HOME=${join(folder, 'login')} decant login ${url}`);
      await see(/^API key for 127\.0\.0\.1:\d+:/m);
      await type(key);
      await see(/END 0$/m);
      expect(await shown()).toContain(`logged in to ${url}`);
      expect(await shown()).not.toContain(key.slice(0, 8));
      expect(await readFile(join(folder, 'login/login.json'), 'utf8')).toContain(key);
    } finally {
      service.child.kill('SIGTERM');
      await service.outcome;
    }
  });
});
