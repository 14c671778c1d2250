import { X509Certificate } from 'node:crypto';

import { DecantError } from '@decant/core';

import type { Backend } from '../backends/backend.ts';
import type { BottleArtifact, BottleCertificate, BottleEndpoints, BottlePlan, BottleSpec } from './plan.ts';
import { slugBase } from './slug.ts';

/**
 * Plans a bottle: what it will be and may do, and how its backend is weaker or cannot be used here. Changes nothing on
 * the machine; the plan is frozen, serialisable and without secret values.
 * @throws NAME_INVALID; CONFIG_INVALID when the backend is another than the one asked for.
 */
export async function planBottle(
  spec: BottleSpec,
  { backend, signal }: { readonly backend: Backend; readonly signal?: AbortSignal | undefined },
): Promise<BottlePlan> {
  if (backend.name !== spec.backend) {
    throw new DecantError('CONFIG_INVALID', `The bottle asks for ${spec.backend}, and ${backend.name} was given.`);
  }
  const report = await backend.probe(signal);
  return frozen({
    ...spec,
    version: 1,
    slugBase: slugBase(spec.name),
    weaknesses: report.weaknesses,
    obstacles: report.usable ? [] : report.reasons,
  });
}

export function withSlug(plan: BottlePlan, slug: string): BottlePlan {
  return frozen({ ...plan, slug });
}

export function withEndpoints(plan: BottlePlan, endpoints: BottleEndpoints): BottlePlan {
  return frozen({ ...plan, endpoints });
}

/** Of the authority's certificate only what identifies it. */
export function withCertificate(plan: BottlePlan, certificatePem: string): BottlePlan {
  const { fingerprint256, validTo } = new X509Certificate(certificatePem);
  const certificate: BottleCertificate = {
    fingerprint: fingerprint256.replaceAll(':', '').toLowerCase(),
    notAfter: new Date(validTo).toISOString(),
  };
  return frozen({ ...plan, certificate });
}

export function withArtifact(plan: BottlePlan, { id, filesystem }: BottleArtifact): BottlePlan {
  return frozen({ ...plan, artifact: { id, filesystem } });
}

/** A copy that nobody can change, whatever the caller does with its own. */
function frozen(plan: BottlePlan): BottlePlan {
  return deepFreeze(structuredClone(plan));
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const item of Object.values(value)) deepFreeze(item);
  }
  return value;
}
