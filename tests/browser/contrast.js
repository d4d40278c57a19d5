// Every text that is seen, with the contrast of its colour to what is behind it, after WCAG 2.2.
// A colour is read by painting it, so that any notation will do.
() => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [1, 1];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) {
      context.fillStyle = colour;
      context.fillRect(0, 0, 1, 1);
    }
    return context.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (colours) => {
    const [r, g, b] = [...paint(colours)].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (front, back) => {
    const [a, b] = [luminance([...back, front]), luminance(back)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const behind = (element) => {
    const colours = [];
    for (let at = element; at !== null; at = at.parentElement) {
      // What is on a picture may be on white.
      colours.unshift(at.matches(".boxes") ? "#fff" : getComputedStyle(at).backgroundColor);
      if (at.matches(".boxes")) break;
    }
    return colours;
  };
  const seen = (element) => element.checkVisibility({ visibilityProperty: true });
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { parentElement: element, textContent } = walker.currentNode;
    if (textContent.trim() === "" || !seen(element)) continue;
    const ratio = contrast(getComputedStyle(element).color, behind(element));
    texts.push({ words: textContent.trim(), ratio });
  }
  const edges = [...document.querySelectorAll("button:not(.plain):not(:disabled), input, select")]
    .filter(seen)
    .map((element) => {
      const ratio = contrast(getComputedStyle(element).borderColor, behind(element.parentElement));
      return { words: element.id || element.textContent, ratio };
    });
  return { texts, edges };
}
