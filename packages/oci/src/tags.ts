import { DecantError, quote } from '@decant/core';

/** `name:tag` without what docker leaves out when it prints a name. */
function familiar(reference: string): string {
  return reference.replace(/^docker\.io\//, '').replace(/^library\//, '');
}

/** The part after the last colon that is not a port; `latest` when there is none. */
function tagOf(reference: string): string {
  const last = reference.slice(reference.lastIndexOf('/') + 1);
  const colon = last.indexOf(':');
  return colon === -1 ? last : last.slice(colon + 1);
}

/** How well a name in a source answers to what was asked for: 2 it is the name, 1 it has that tag, 0 not at all. */
export function tagMatch(name: string, asked: string): 0 | 1 | 2 {
  if (name === asked || familiar(name) === familiar(asked)) return 2;
  if (!asked.includes(':') && !asked.includes('/') && tagOf(name) === asked) return 1;
  if (familiar(name) === `${familiar(asked)}:latest`) return 1;
  return 0;
}

const SHOWN = 20;

function listed(tags: readonly string[]): string {
  const shown = tags.slice(0, SHOWN).map(quote).join(', ');
  return tags.length > SHOWN ? `${shown} and ${tags.length - SHOWN} more` : shown;
}

export function tagNeeded(tags: readonly string[]): DecantError {
  return new DecantError(
    'OCI_SOURCE_INVALID',
    tags.length === 0
      ? 'The source holds several images without names.'
      : `The source holds several images: ${listed(tags)}.`,
    { hint: 'Say which one, for example oci:DIR:TAG.', details: { tags: tags.slice(0, 100) } },
  );
}

export function tagMissing(asked: string, tags: readonly string[]): DecantError {
  return new DecantError(
    'OCI_SOURCE_INVALID',
    `The source has no image ${quote(asked)}; it has ${tags.length === 0 ? 'no names' : listed(tags)}.`,
    { details: { tag: asked, tags: tags.slice(0, 100) } },
  );
}
