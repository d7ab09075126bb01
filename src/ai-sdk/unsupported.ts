/**
 * What this provider cannot do, said by name.
 *
 * Thrown where the answer would be wrong without it; what would only be different is a warning.
 */
import { UnsupportedFunctionalityError } from '@ai-sdk/provider';

export function unsupported(functionality: string): UnsupportedFunctionalityError {
  return new UnsupportedFunctionalityError({
    functionality,
    message:
      `lorax-js models read and write text; ${functionality} are not supported ` +
      '(see `capabilities` of the model).',
  });
}
