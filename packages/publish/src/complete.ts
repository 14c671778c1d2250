import {
  completeResponseSchema,
  DecantError,
  FORMAT_VERSIONS,
  isErrorCode,
  sleep,
  templateBuildSchema,
  type OnEvent,
  type PrepareResponse,
  type Template,
  type TemplateBuild,
} from '@decant/core';
import type { HttpClient } from '@decant/transport';

export interface CompletionFacts {
  /** The URI that the dataplane signed: of the manifest (cas-streaming) or of the one object (ext4). */
  readonly uri: string;
  readonly virtualBytes: number;
  readonly diskBytes: number;
  /** Whether decant's own writer made the image. */
  readonly layout: 'hinted' | 'foreign';
}

/** Longest pause between two looks at a build that is being admitted, and how long to look, in milliseconds. */
const POLL_MS = 3000;
const POLL_LIMIT_MS = 30 * 60 * 1000;

/**
 * Declares the upload complete and waits until it is admitted: the template is in the answer (200), or the
 * build is polled (202) every 3 s for at most 30 min, sooner at first.
 * @throws the server's reason when it refuses; TIMEOUT.
 */
export async function completeBuild(
  client: HttpClient,
  build: PrepareResponse,
  facts: CompletionFacts,
  { onEvent, signal }: { readonly onEvent?: OnEvent | undefined; readonly signal?: AbortSignal | undefined },
): Promise<Template> {
  const path = `/platform/v1/sandbox-template-builds/${encodeURIComponent(build.buildId)}`;
  let answer: Template | TemplateBuild = await client.json(completeResponseSchema, 'POST', `${path}/complete`, {
    body: {
      snapshotId: build.snapshotId,
      snapshotUri: facts.uri,
      snapshotFormatVersion: FORMAT_VERSIONS[build.rootfsFormat],
      snapshotSizeBytes: facts.virtualBytes,
      rootfsDiskBytes: facts.diskBytes,
      rootfsNodeKind: build.rootfsNodeKind,
      rootfsFormat: build.rootfsFormat,
      layout: facts.layout,
    },
    // The server knows the build by its id: completing twice changes nothing.
    idempotent: true,
    timeoutMs: POLL_LIMIT_MS,
    signal,
  });
  const deadline = performance.now() + POLL_LIMIT_MS;
  for (let pauseMs = 20; ; pauseMs = Math.min(POLL_MS, pauseMs * 2)) {
    if (!isBuild(answer)) return answer;
    if (answer.status === 'completed' && answer.template !== undefined) return answer.template;
    if (answer.status === 'failed' || answer.status === 'completed') throw refusal(answer);
    if (answer.progress !== undefined && answer.progress.totalBytes > 0) {
      onEvent?.({ type: 'stage-progress', stage: 'admit', ...answer.progress });
    }
    if (performance.now() > deadline) {
      throw new DecantError('TIMEOUT', 'The server did not admit the image within 30 minutes.', {
        hint: 'Its admission goes on; look for the image later with: decant image ls',
      });
    }
    await sleep(pauseMs, signal);
    answer = await client.json(templateBuildSchema, 'GET', path, { signal });
  }
}

function isBuild(answer: Template | TemplateBuild): answer is TemplateBuild {
  return 'buildId' in answer;
}

function refusal(build: TemplateBuild): DecantError {
  const code = build.problem?.code;
  return new DecantError(isErrorCode(code) ? code : 'INGEST_REFUSED', build.error ?? 'The image was not admitted.', {
    hint: build.problem?.hint,
    details: { buildId: build.buildId },
  });
}
