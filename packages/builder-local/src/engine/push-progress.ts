import type { ProgressEvent } from '@decant/core';

/*
 * docker push, without a terminal:      ID: Preparing | Waiting | Pushed | Layer already exists | Mounted from NAME
 *                                       TAG: digest: sha256:… size: N
 * podman push:                          Copying blob sha256:… | Copying config sha256:… | Writing manifest …
 */
const DOCKER_LAYER = /^([0-9a-f]{12}): (Preparing|Waiting|Pushed|Layer already exists|Mounted from .*)$/;
const DOCKER_DONE = /^\S+: digest: (sha256:[0-9a-f]{64}) size: \d+$/;
const PODMAN_BLOB = /^Copying blob ((?:sha256:)?[0-9a-f]{12,64})/;

/** Reads what a push writes, and tells of layers that are done of those that are known. */
export class PushReader {
  readonly #onEvent: ((event: ProgressEvent) => void) | undefined;
  readonly #layers = new Map<string, boolean>();
  #digest: string | undefined;

  constructor(onEvent: ((event: ProgressEvent) => void) | undefined) {
    this.#onEvent = onEvent;
  }

  /** Of the manifest, once docker has said it. */
  get digest(): string | undefined {
    return this.#digest;
  }

  line(line: string): void {
    const layer = DOCKER_LAYER.exec(line);
    if (layer !== null) {
      const waits = layer[2] === 'Preparing' || layer[2] === 'Waiting';
      this.#set(layer[1]!, !waits);
      return;
    }
    this.#digest = DOCKER_DONE.exec(line)?.[1] ?? this.#digest;
    const blob = PODMAN_BLOB.exec(line)?.[1];
    if (blob !== undefined) this.#set(blob, false);
    // What comes behind the layers says that they are done.
    if (/^(Copying config|Writing manifest)/.test(line)) for (const id of this.#layers.keys()) this.#set(id, true);
  }

  #set(id: string, done: boolean): void {
    if (this.#layers.get(id) === done) return;
    this.#layers.set(id, done);
    const items = [...this.#layers.values()].filter(Boolean).length;
    this.#onEvent?.({ type: 'stage-progress', stage: 'upload', items, totalItems: this.#layers.size });
  }
}
