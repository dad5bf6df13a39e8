for (const box of document.querySelectorAll(".finder")) {
  const words = box.querySelector("input"), kind = box.querySelector("select"), told = box.querySelector("output");
  const rows = [...document.getElementById(box.dataset.rows).tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const show = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, place) => {
      const fits = (!kind.value || row.dataset.change === kind.value) && wanted.every((word) => texts[place].includes(word));
      row.hidden = !fits;
      count += fits;
    });
    told.textContent = `${count} of ${rows.length} shown`;
  };
  box.hidden = false;
  words.addEventListener("input", show);
  kind.addEventListener("change", show);
  show();
}
