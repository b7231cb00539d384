/** Pixels of a character. */
export const glyph = { width: 5, height: 9 } as const;

// The characters of solvers' names and numbers, each 5 pixels wide, with one column between two.
// Two rows below the line are for descenders.
const sheets: Record<string, readonly string[]> = {
  abcdefghijklm: [
    '      #               #         ##        #       #      #  #      ##',
    '      #               #        #  #       #                 #       #',
    ' ###  # ##   ###   ## #  ###   #     #### # ##   ##     ##  #  #    #   ## #',
    '    # ##  # #   # #  ## #   # ###   #   # ##  #   #      #  # #     #   # # #',
    ' #### #   # #     #   # #####  #    #   # #   #   #      #  ##      #   # # #',
    '#   # #   # #   # #   # #      #    #   # #   #   #      #  # #     #   # # #',
    ' #### ####   ###   ####  ###   #     #### #   #  ###     #  #  #   ###  # # #',
    '                                        #             #  #',
    '                                     ###               ##',
  ],
  nopqrstuvwxyz: [
    '                                     #',
    '                                     #',
    '# ##   ###  # ##   ## # # ##   #### ###   #   # #   # #   # #   # #   # #####',
    '##  # #   # ##  # #  ## ##  # #      #    #   # #   # #   #  # #  #   #    #',
    '#   # #   # #   # #   # #      ###   #    #   # #   # # # #   #   #   #   #',
    '#   # #   # #   # #   # #         #  #  # #  ##  # #  # # #  # #  #   #  #',
    '#   #  ###  ####   #### #     ####    ##   ## #   #    # #  #   #  #### #####',
    '            #         #                                               #',
    '            #         #                                            ###',
  ],
  '0123456789_': [
    ' ###    #    ###  #####    #  #####   ##  #####  ###   ###',
    '#   #  ##   #   #    #    ##  #      #        # #   # #   #',
    '#  ##   #       #   #    # #  ####  #        #  #   # #   #',
    '# # #   #     ##     #  #  #      # ####    #    ###   ####',
    '##  #   #    #        # #####     # #   #  #    #   #     #',
    '#   #   #   #     #   #    #  #   # #   #  #    #   #    #',
    ' ###   ###  #####  ###     #   ###   ###   #     ###   ##   #####',
    '',
    '',
  ],
};

const glyphs = new Map(
  Object.entries(sheets).flatMap(([characters, rows]) =>
    [...characters].map((character, i) => {
      const left = i * (glyph.width + 1);
      return [character, rows.map((row) => row.slice(left, left + glyph.width))] as const;
    }),
  ),
);

/** Pixels of a text that is drawn with each dot as a square of `scale` pixels. */
export const widthOf = (text: string, scale: number): number => (text.length * (glyph.width + 1) - 1) * scale;

/** The dots of a text, [x, y] from its upper left corner. A character that there is not leaves a space. */
export function dotsOf(text: string): [x: number, y: number][] {
  return [...text].flatMap((character, i) =>
    (glyphs.get(character) ?? []).flatMap((row, y) =>
      [...row].flatMap((dot, x): [number, number][] => (dot === '#' ? [[i * (glyph.width + 1) + x, y]] : [])),
    ),
  );
}
