import { describe, expect, it } from 'vitest';

import { chooseBuilder } from './choose.ts';
import type { DetectedBuilder } from './detect.ts';
import type { BuilderDriver, BuildRequest } from './driver.ts';

const context: BuildRequest['context'] = {
  dockerfile: { displayPath: 'Dockerfile', bytes: new TextEncoder().encode('FROM a\n') },
  materialize: () => Promise.resolve(),
};

describe('chooseBuilder', () => {
  const usable = (
    name: 'docker-buildkit' | 'docker' | 'buildah' | 'podman',
    features: readonly string[] = [],
  ): DetectedBuilder => {
    const capabilities = { architecture: 'amd64', features: new Set(features), networks: ['default'], rootless: false };
    return {
      usable: true,
      name,
      program: name,
      driver: { name, engine: name, capabilities } as unknown as BuilderDriver,
    };
  };
  const broken: DetectedBuilder = {
    usable: false,
    name: 'docker',
    program: '/usr/bin/docker',
    reason: 'It does not run.',
    hint: 'Start it.',
  };
  const request = (text: string) => ({
    context: { ...context, dockerfile: { displayPath: 'D', bytes: new TextEncoder().encode(text) } },
  });

  it('prefers BuildKit, then buildah, then podman, then the classic builder', () => {
    const all = [usable('docker'), usable('podman'), usable('buildah'), usable('docker-buildkit')];
    expect(chooseBuilder(all)).toMatchObject({
      driver: { name: 'docker-buildkit' },
      why: expect.stringContaining('preferred to buildah, podman, docker'),
    });
    expect(chooseBuilder([broken, usable('docker'), usable('buildah')]).driver.name).toBe('buildah');
    expect(chooseBuilder([usable('docker')]).why).toContain('only engine');
  });

  it('takes one that has what the Dockerfile needs', () => {
    const all = [usable('docker-buildkit'), usable('buildah', ['heredoc'])];
    const chosen = chooseBuilder(all, { request: request('FROM a\nRUN <<E\nx\nE\n') });
    expect(chosen).toMatchObject({
      driver: { name: 'buildah' },
      why: expect.stringContaining('docker-buildkit has not'),
    });
  });

  it('takes one that has the network, the secrets and the equal ids that the build wants', () => {
    const able = (name: 'docker' | 'docker-buildkit' | 'buildah', can: object): DetectedBuilder => {
      const builder = usable(name);
      if (builder.usable) Object.assign(builder.driver.capabilities, { secrets: false, reproducible: false }, can);
      return builder;
    };
    const wants = request('FROM a\n');
    for (const [can, more] of [
      [{ secrets: true }, { secrets: [{ id: 'k', value: 'v' }] }],
      [{ networks: ['default', 'none'] }, { network: 'none' }],
      [{ reproducible: true }, { reproducible: true }],
    ] as const) {
      const all = [able('docker-buildkit', {}), able('buildah', can)];
      expect(chooseBuilder(all, { request: { ...wants, ...more } }).driver.name).toBe('buildah');
      expect(chooseBuilder(all, { request: wants }).driver.name).toBe('docker-buildkit');
    }
  });

  it('obeys the choice of the caller', () => {
    const all = [usable('buildah'), usable('docker-buildkit'), usable('docker')];
    expect(chooseBuilder(all, { engine: 'buildah' }).driver.name).toBe('buildah');
    expect(chooseBuilder(all, { engine: 'docker' }).driver.name).toBe('docker-buildkit');
  });

  it('says what is wrong and what to do when there is none', () => {
    expect(() => chooseBuilder([broken])).toThrow(
      expect.objectContaining({
        code: 'BUILD_ENGINE_MISSING',
        message: expect.stringContaining('It does not run.'),
        hint: 'Start it.',
      }),
    );
    expect(() => chooseBuilder([])).toThrow(
      expect.objectContaining({ hint: expect.stringMatching(/buildah|Docker Desktop/) }),
    );
    expect(() => chooseBuilder([usable('docker')], { engine: 'buildah' })).toThrow(
      expect.objectContaining({ code: 'BUILD_ENGINE_MISSING' }),
    );
  });
});
