import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { BuildahReader } from './buildah.ts';
import { BuildkitReader } from './buildkit.ts';
import { ClassicReader } from './classic.ts';
import { plain, type OutputReader } from './reader.ts';

// Outputs recorded from docker 20.10.24, the docker 28.2 client and buildah 1.28.2; digests and times shortened.

function read(reader: OutputReader, recorded: string, stream: 'stdout' | 'stderr' = 'stdout', errors = '') {
  const events = recorded.split('\n').flatMap((line) => reader.line(line, stream));
  for (const line of errors.split('\n').filter((text) => text !== '')) events.push(...reader.line(line, 'stderr'));
  return events.flatMap((event) => (event.type === 'log' ? [event.line] : []));
}

describe('BuildKit', () => {
  const head = `#1 [internal] load build definition from Dockerfile
#1 sha256:01ff264fe300c65a
#1 transferring dockerfile: 58B done
#1 DONE 0.0s

#3 [internal] load metadata for docker.io/library/base:latest
#3 sha256:50a8f99bcd5ff57b
#3 DONE 0.0s

#4 [1/4] FROM docker.io/library/base:latest
#4 sha256:3ba76865ed8cc95b
#4 DONE 0.0s

#6 [2/4] COPY a.txt /a.txt
#6 sha256:1b91b65bcc4d2572
#6 CACHED

#7 [3/4] RUN echo "m=x"; echo err >&2; printf noeol
#7 sha256:489dd4d6dc25513d
#7 0.084 err
#7 0.084 m=x
#7 0.084 noeol#7 DONE 0.1s
`;

  it('gives steps, cache hits and output, without the rest', () => {
    const reader = new BuildkitReader();
    expect(read(reader, head, 'stderr')).toEqual([
      '[1/4] FROM docker.io/library/base:latest',
      '[2/4] COPY a.txt /a.txt',
      'CACHED [2/4] COPY a.txt /a.txt',
      '[3/4] RUN echo "m=x"; echo err >&2; printf noeol',
      'err',
      'm=x',
      'noeol',
    ]);
  });

  it('reports a failing step', () => {
    const reader = new BuildkitReader();
    const failed = `
#8 [4/4] RUN echo before; sh -c "exit 7"
#8 sha256:dc53d846cfc364a5
#8 0.052 before
#8 ERROR: executor failed running [/bin/sh -c echo before; sh -c "exit 7"]: exit code: 7
------
 > [4/4] RUN echo before; sh -c "exit 7":
------
executor failed running [/bin/sh -c echo before; sh -c "exit 7"]: exit code: 7`;
    read(reader, head + failed, 'stderr');
    expect(reader.failure()).toMatchObject({
      kind: 'step',
      step: '4/4',
      command: 'RUN echo before; sh -c "exit 7"',
      exitCode: 7,
      lastLines: ['before'],
    });
  });

  it('keeps the failed step when steps beside it report that they were cancelled', () => {
    const reader = new BuildkitReader();
    read(
      reader,
      `#5 [a 2/2] RUN sleep 9
#6 [b 2/2] RUN exit 3
#5 ERROR: context canceled
#6 ERROR: process "/bin/sh -c exit 3" did not complete successfully: exit code: 3`,
      'stderr',
    );
    expect(reader.failure()).toMatchObject({ kind: 'step', step: 'b 2/2', exitCode: 3 });
  });

  it('tells a base image, a front end, a missing source and a bad Dockerfile apart', () => {
    const failure = (recorded: string) => {
      const reader = new BuildkitReader();
      read(reader, recorded, 'stderr');
      return reader.failure();
    };
    expect(
      failure(`#3 [internal] load metadata for registry.invalid/x/y:1
#3 sha256:77a0fddd50b8ca00
#3 ERROR: failed to do request: Head "https://registry.invalid/v2/x/y/manifests/1": dial tcp: no such host`),
    ).toMatchObject({ kind: 'base', image: 'registry.invalid/x/y:1' });
    expect(
      failure(`#3 resolve image config for docker.io/docker/dockerfile:1
#3 ERROR: failed to do request: Head "https://registry-1.docker.io/v2/": no such host`),
    ).toMatchObject({ kind: 'front-end', image: 'docker.io/docker/dockerfile:1' });
    expect(
      failure(`#6 [2/2] COPY missing.txt /m
#6 sha256:c3e5ad1996662e00
#6 ERROR: "/missing.txt" not found: not found`),
    ).toMatchObject({ kind: 'step', command: 'COPY missing.txt /m', exitCode: undefined });
    expect(
      failure(
        'failed to solve with frontend dockerfile.v0: failed to create LLB definition: dockerfile parse error line 3: unknown instruction: ECHO',
      ),
    ).toMatchObject({ kind: 'invalid', reason: 'dockerfile parse error line 3: unknown instruction: ECHO' });
    expect(failure('Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?')).toMatchObject({
      kind: 'engine',
    });
  });
});

describe('the classic builder', () => {
  const recorded = `Sending build context to Docker daemon  2.7kB
Step 1/5 : FROM decant-demo-base:latest AS one
 ---> e37f28e8ccd5
Step 2/5 : ARG MSG
 ---> Using cache
 ---> 9d0a5af4225c
Step 4/5 : RUN echo "m=$MSG"; echo err >&2; printf noeol
 ---> Running in aff13efd74f2
\u001B[91merr
\u001B[0mm=x
noeolRemoving intermediate container aff13efd74f2
 ---> 43127c1149dd`;
  const failed = `
Step 5/5 : RUN echo before; sh -c "exit 7"
 ---> Running in 4d30c57a4605
before`;

  it('gives steps, cache hits and output, without the rest', () => {
    expect(read(new ClassicReader(), recorded)).toEqual([
      '[1/5] FROM decant-demo-base:latest AS one',
      '[2/5] ARG MSG',
      'CACHED [2/5] ARG MSG',
      '[4/5] RUN echo "m=$MSG"; echo err >&2; printf noeol',
      'err',
      'm=x',
      'noeol',
    ]);
  });

  it('reports a failing step', () => {
    const reader = new ClassicReader();
    const deprecation = 'DEPRECATED: The legacy builder is deprecated and will be removed in a future release.\n';
    const error = `The command '/bin/sh -c echo before; sh -c "exit 7"' returned a non-zero code: 7`;
    read(reader, recorded + failed, 'stdout', deprecation + error);
    expect(reader.failure()).toMatchObject({ kind: 'step', step: '5/5', exitCode: 7, lastLines: ['before'] });
  });

  it('tells a base image, a missing source and a bad Dockerfile apart', () => {
    const base = new ClassicReader();
    read(
      base,
      'Step 1/2 : FROM --platform=linux/amd64 no-such:9',
      'stdout',
      'Get "https://registry-1.docker.io/v2/": no such host',
    );
    expect(base.failure()).toMatchObject({ kind: 'base', image: 'no-such:9' });
    const copy = new ClassicReader();
    read(
      copy,
      'Step 2/2 : COPY missing.txt /m',
      'stdout',
      'COPY failed: file not found in build context: stat missing.txt',
    );
    expect(copy.failure()).toMatchObject({ kind: 'step', exitCode: undefined, command: 'COPY missing.txt /m' });
    const bad = new ClassicReader();
    read(bad, '', 'stdout', 'Error response from daemon: dockerfile parse error line 3: unknown instruction: ECHO');
    expect(bad.failure()).toMatchObject({
      kind: 'invalid',
      reason: 'dockerfile parse error line 3: unknown instruction: ECHO',
    });
  });
});

describe('buildah', () => {
  const recorded = `[1/2] STEP 1/2: FROM decant-demo-base:latest AS a
[1/2] STEP 2/2: RUN echo a > /a
--> Using cache d398ed0638f5c2f73c33939b21f24c113051c1eb7dbcda87c23f76c3d88f4b1a
--> d398ed0638f
[2/2] STEP 1/3: FROM decant-demo-base:latest AS b
[2/2] STEP 2/3: RUN printf noeol
noeol--> 3faed4a82ea
[2/2] STEP 3/3: RUN echo a COMMIT; printf noeol
a COMMIT
noeolCOMMIT localhost/app:1
--> 1df316a09aa
1df316a09aa45326166a4c1b96897e70b0b905598713c5fab9629917e241eeae`;

  it('gives steps, cache hits and output, without the rest', () => {
    const noise = 'Getting image source signatures\nStoring signatures\nto-stderr';
    expect(read(new BuildahReader(), recorded, 'stdout', noise)).toEqual([
      '[1/2 1/2] FROM decant-demo-base:latest AS a',
      '[1/2 2/2] RUN echo a > /a',
      'CACHED [1/2 2/2] RUN echo a > /a',
      '[2/2 1/3] FROM decant-demo-base:latest AS b',
      '[2/2 2/3] RUN printf noeol',
      'noeol',
      '[2/2 3/3] RUN echo a COMMIT; printf noeol',
      'a COMMIT',
      'noeol',
      'to-stderr',
    ]);
  });

  it('reports a failing step, with both kinds of isolation', () => {
    for (const reason of ['exit status 7', 'while running runtime: exit status 7']) {
      const reader = new BuildahReader();
      read(
        reader,
        `STEP 5/5: RUN echo "a: b"; sh -c "exit 7"\nbefore`,
        'stdout',
        `subprocess exited with status 7\nError: building at STEP "RUN echo "a: b"; sh -c "exit 7"": ${reason}`,
      );
      expect(reader.failure()).toMatchObject({ kind: 'step', step: '5/5', exitCode: 7, reason, lastLines: ['before'] });
    }
  });

  it('tells a base image, a missing source and a bad Dockerfile apart', () => {
    const failure = (out: string, error: string) => {
      const reader = new BuildahReader();
      read(reader, out, 'stdout', error);
      return reader.failure();
    };
    expect(
      failure(
        'STEP 1/2: FROM no-such-base:9',
        'Error: creating build container: short-name "no-such-base:9" did not resolve to an alias',
      ),
    ).toMatchObject({ kind: 'base', image: 'no-such-base:9' });
    expect(
      failure(
        'STEP 2/2: COPY missing.txt /m',
        'Error: building at STEP "COPY missing.txt /m": checking on sources under "/w/c1": copier: stat: "/missing.txt": no such file or directory',
      ),
    ).toMatchObject({ kind: 'step', exitCode: undefined, reason: expect.stringMatching(/^checking on sources/) });
    expect(
      failure('STEP 2/2: RUNN true', 'Error: building at STEP "RUNN true": Build error: Unknown instruction: "RUNN"'),
    ).toMatchObject({ kind: 'invalid' });
  });
});

describe('every reader', () => {
  it('takes any line, passes no control bytes on and keeps a bounded report', () => {
    const piece = fc.oneof(
      fc.string({ unit: 'binary' }),
      fc.constantFrom(
        '#1 ',
        'Step 1/2 : ',
        'STEP 1/2: ',
        '[1/2] RUN x',
        'ERROR: ',
        '0.1 ',
        '--> ',
        '\u001B[91m',
        '\r',
        'Error: ',
      ),
    );
    const line = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join(''));
    fc.assert(
      fc.property(fc.array(fc.tuple(line, fc.boolean()), { maxLength: 40 }), (lines) => {
        for (const reader of [new BuildkitReader(), new ClassicReader(), new BuildahReader()]) {
          for (const [text, out] of lines) {
            for (const event of reader.line(text, out ? 'stdout' : 'stderr')) {
              if (event.type === 'log') expect(plain(event.line)).toBe(event.line);
            }
          }
          expect(reader.failure().lastLines.length).toBeLessThanOrEqual(20);
        }
      }),
      { numRuns: 200 },
    );
  });

  it.each([
    ['buildah', new BuildahReader(), 'STEP 1/1: RUN x'],
    ['docker', new ClassicReader(), 'Step 1/1 : RUN x'],
  ])('keeps the last twenty lines of a step, each of a bounded length: %s', (_, reader: OutputReader, step) => {
    reader.line(step, 'stdout');
    for (let line = 1; line < 50; line++) reader.line(`line ${line}`, 'stdout');
    reader.line('x'.repeat(5000), 'stdout');
    const { lastLines } = reader.failure();
    expect(lastLines).toHaveLength(20);
    expect(lastLines[0]).toBe('line 31');
    expect(lastLines.at(-1)).toBe(`${'x'.repeat(2000)}…`);
  });

  it('keeps the last state of a line that redraws itself', () => {
    expect(plain('10%\r50%\r\u001B[32m100%\u001B[0m\r')).toBe('100%');
    expect(plain('\u001B]0;title\u0007text')).toBe('text');
  });
});
