"""Words that make a text toxic or sexual, and innocent ones that hold them. Touches nothing.

The lists are compressed and written in base64, so that nobody who reads, searches or demonstrates this source meets
a wall of slurs.
`words(NAME)` gives them; `encode(list)` makes the text of a changed list.
"""

from __future__ import annotations

import base64
import zlib

TOXIC_ENGLISH = (
    "eNpVVEsWpCAM3HMK194qKiIjgs/g9PP2U0nA7llYVUEJMR/We97dCmBFvxhdjWw15kbBHaVu/hLrR/KPhocf4/rP+P0OPn+N4HiLVYEV62PUX22e"
    "llfYJ1tJ3k13Srq1C34VXLxS3HRDXf0a3y3mMtZ5M/Rs/BipF+JK19KZHTHrtsZYuNjbShPslvvA9y+z+0PzTl/GmzjvGlgX7D6UJYNG7GphhmkE"
    "80NVgd1856rA7ryw3RBJmuW40BmHlBv/JEuvsgrryV3Y0kqzf4UtfZDmxhLwqXlvjCgKzrSifyW7y2u6jKQDrpINsQWraAQjdvGY/ByRuC7YbZRW"
    "ObYxuxxDwAlGZpIhYqQQSm2kpjwI9dm9ArJ2Uc5PI3Z7xBsBJOuMswIS7+uEunRGnKj8bsgulLIr4N8oaOYaS40+PunSq+CZ8tLC/krJFxIhgC6I"
    "gaZSOqOMqB/lKKF+JbJR8v4YIo7nPIshNtAeFRB9OeXBb1MoCiKvPfpGUpOFZQIbyzj5g5D4xlKmHEoqcfkqSRF6XrOk3K+M4caBG9UBwzTo1bCO"
    "CqPCCK8jRnsETKOM1jyiX2kcdUjOyDyUdVUBZyJDGWoZNp+S45KxNNBgUwmzrGR6jykNT7kxZWl1khKu6+1CXQviidUPKDNvrfVwMfE9bfdB2f31"
    "1xHzcPUW1w5NcVIOZVnoyJ2xbys4wi4ZjNt7T1WSi1Evr/XGr+KfOd1VAWXALm+IwFDC3RCFI9ZU/fEflNTHNMBbkknXoE90Djol+jDIy3/MrRIE"
)
"""Profanity, slurs, and calls to harm."""

SEXUAL_ENGLISH = (
    "eNpdVFm2rCAM/GcVbsBFRU0Lt5F4CHS3d/WvGLS978NUERkyFExe3j8ymamhGkthKY6OaqLbyriBmjlvaiWdCEdk2nbHF1GzUlgnfBdRk2xkVtn4"
    "y9RIXI9q1Ez5+aQnn6hmcX6RZtW83BQpSbyImodntd6tNt1o2Sel3ef1Imo25x/VIDkOiVwHNbvEIM22gSaKF0FqtK0u+hPVaIpu3zleRA3rLDGN"
    "dd6NIwHmHbkKpRtF3DQ78uNZxr9D1MmldDRbB+VDVlJaJKX+Aed6HmePWv8ZlFkBoVWLdDi4blE/Wl2gDsjLY+NiGpXovgRrsurRLNwyP6spHQEt"
    "Bvtl/6JmUZQ5SsrbiQibNbnZ80XUUMjNtA5Z8XwRreIbTxWOlwzHU4fNpfwZkxwnVgc606E3JzEp3ygKdmy7lQ7IQjbUAP8/N4q2cHJqOzQxNGGs"
    "kXZ73LibzefzGV5uYWx3URP08S5iLheg9K9gKWJBtBdHrebH/f4ai60OE6DyZWhSCXnhG+2O3c0QL2nKcaLEN3p3L19eTvgOJBj+oTn7svZkxYsY"
    "SbcOEDC6hpwaEJpEfkBJ8b8TS3GBrrkO1ih5r8y7V3M9cJ8rwddrcbHapGG2uASFJNrZoA2hLZgWxAG9LrT2rdjXIFGwEJxHQrl0bMULkQ5IptLh"
    "5HnyqBIHTrFlppY3gqCG2r6869PFZF5ycI7N9+YJWqlnvTkNTeqTW4d2zUCq4G1GQJVhZq2rCzPE3DaZiqwJ9+UwvyJQhHdkVvELhwG3+N3eB9rH"
    "ElIhpRWR5xpj2cHmyXxOAVloN2FJ5CXlic2BApdTJPjjQUEHz/TsTwsCjy8383/D8lJ53xVES/ZpWJocrMhzQMOShPpUIp2jz8NzM9Sn8eUIwjbl"
    "HXL6D1upQpw="
)
"""Pornography, its trade, and explicit words."""

ALLOWED_ENGLISH = (
    "eNpVkkGy5CAIhveegt1sXuZORElixYgFptO5/WBMXvdsrI9fEAQ2Hk8I0a+uHeAXynTenFBu+YUZwrmSK0tMscD6t8dgDt/RxxJrjXmunLtQdynx"
    "YUH/vIwvqrWzRL+gBHWVt5/+Fr1ITvi1wbKA+cjpyq56WgjXG4+YEh//GXpbHm+nBp7vd8Y9pcsacAjMIZE7COtCAk3tjsKjVa2Vyy3uGyTcA7kN"
    "54zwsXXftm+70SyYGRRTVDemnaDG6maxLBd5xnRBL/fCDUWXi54A/URYa2KFiQWq/cR4MB4aTzgD5eDaaKxoDO53UDxN+Ec7a+FaKfTmClVrN9iP"
    "rePQLVek9XkvN/DUQZuUiaxLcAnOpnmTX2JewdrUwUIu0CYtnNc2wLx2HC70zBkW3q3gDWMmaMIXqtUWdG0Z2H7HpO5AXfo+wX2nbopCT90k5Gu0"
    "W0tvP4LHdq84ij0hsLGdLut0wBRTJbFuoNboLWUyx8cqKJhOtZG1iWvfOcptLVVtOSzB+/22ICl6UaK5JdK9kIx8JDDRkZpDBQt4RU/ahvZZHghk"
    "M6V/QMM+ow=="
)
"""Innocent phrases and names that hold one of the others."""

TOXIC_CHINESE = (
    "eNplk916ojAQhs9zmbt7uO1J9wLUSi1atLbWX+yfipYKLequCEJvhkngLnYmJO2zzx7NO0kImZnvg1pcVI4MajEEdQr8rceEcS/WPcY3o2JyJ9ov"
    "vN5h/NbKkkdwLllumZrMg6ZaRxEfLBTBYUO0GqpvZYj78tCtlU9aDNpxeVaM66zckvS1Jkk+0LnMoossdFUiw/tRtCdEojXA/9IXSPhHMGK5Nq2J"
    "pcVUKBptCqLdAuOVfl+SSHvgXbMifYD6hyZvRMT3+3znZKGdLz4YvDRpLW94mnZBFkUU8t2SAr2kcMeUYaCMx2PdlngsmvIzanXHpCCOEcuiKzqY"
    "zwwMovnG8sdnWdv9Odip7r0Xg7EC/w8rg8xNah/R9ZJloQXpABYJ5iyvd7nfYnwUFWNb3QDHAHOViFEiBjud3Nmi96BqFE4CRkK3OTV8WsTDGRa2"
    "EEGsDvDeW1GbiStXEVbNirhbrI/y1rFPW8XwIwtN7D/jsxssmQjeOzghbq/xqGyyDPIiLOEhypK1pM6QV6qSVkNR81l2eIL9jnax8fiw3Knm9ZB9"
    "Es5cz8e5BKvPzQMrolgMDqQGlCrfLoqXNQNryZdJqRiSVXmGSEny18kPdnpy9pN9Pz1hZ9905+MxNKIs9GCSoI4q1HYsR7erNZDDq1Tl6CtH/rhn"
    "EFxl4VTO8PocgjZOSRNOivfST3lDUKWcJItEpvMutM/cRPuMqPQZUekzJOUzJDjIXe9cG4zWSme5iXaWoq81SfKVboLOgkpLJdpZXVc5CydRzJuy"
    "2IktVj7TAf1EIbXBuCmNY4P3qo2zXfNpQF3Kt3Ppk+0836woyGat9pRhKH2S6rLiVDSfpb1mU20Jw+H+UAps9PSPbNUfULbCCpVs+d2geLpXO0ql"
    "wVrTdq6ESmulCOWuF+d+kxstVtTN/wTXMNknYfPU3fjcfDsjwSmZOfTNQsms62pxlVUpGdloTD9SMlIXkXBWMxKO+L2R7e+/auGU9CUcOT2Uy1/f"
    "Gre1"
)
"""Profanity, slurs, and calls to harm, simplified and traditional."""

SEXUAL_CHINESE = (
    "eNpNVNly6joQfNdfng+4T7fqPLPYgEPYAiEsTgI4Zk1YHRZj4Ges7S/OzFhOqDK0eiTLo9F0K2cr8jZTBNIppqNLg+mzBQRGctFFgrNi1UeIj44M"
    "JxQo1eMwlK1vftmkJHkjIRD+XaYmBT1qpDPrmloF6cwy5K/9dKZ/pXfyNnzfQLr6sJCTC4KqDBHi0wZBrGmOj4u0ZJaw2oJgmmf6OOSHgKA+Ybw4"
    "QKZyjvCemO4E6rGKoLNNBN4qUvApx/T1nX8ETL5e4+ORxacdMgBRujHu7/lXnfHDFAJMlgoIet7Dr0O6BIsZAnyI2MaCYY3xmheHHzDsI4jMBAFe"
    "puCeQDhlyJyp4lzYa4LGETa15PbKxGXJ6yemRy4EGC/YCOJlwP2X+PjFiyF+ANJhPNuTpQ1ktoEnrX1mgjEA1a0jcD9AEJ9buNUM/3CxHWQ4lrml"
    "AXmFfGoBpVUL+MMMRrprM15pY4580ebTiGA5Ynzc5P4Oz88ndeFW+MMQ9n3QL9OEJBNM+BEvwmm9o8o+IMSXJoK0Jwja3TJuT2HExC2DHWCyJ5L2"
    "ApG09V4GcpBlwnUIiOlFRxxt9ucvZBRHHYj6wv3885cZDgejkkM9fahuFCKo28GAqqyY6PgIPPeJSfyM4LY2cTRm2KzjM5OFdzy0qr+qqiOq0GCn"
    "iKqQPYhyRXldHj4z9b3mtoMHhNPJ3AkB5MR4aQ+lUauNyDegVK9q5Bqi1nnx3MWNRKUgz42Es///g5CsllkCJoqHvSzV7Ut9H6ABFjx8YPATJei3"
    "DwuWqoILZ8yo8huTgwBieN/wvfhYEY85Bg0gswuE+NyFf/F1hm0i3oFGf54nDxNPR7kE3TlN7b0JN2Rx9M6bPuPeUnd2VJ/6I3+vQuPEUc8QqDGv"
    "ldOLhCsFOcMJDZibVc6O7t7ZqdIbU9ZGDT0cpf4y5c0stIQt1i3QM0maMhCvK6MSlLJ4dERjhiNjY/stOFcebWy/TWwsn/pX0Ps1Jt0/3/lXstQY"
    "07itB+c7y5rP0xloeC/dgLvtX8tKl6ERjcirnmfkVWGO/Gg2Zrr/Rn4EgH50uhLrrlW1jUBGBMzyCMiIXD34QpdA0NMDGooe1sgC7AmCtIZ3FpDt"
    "CQsM1erDkx4CZI4xAPvKZGCRxgnk1bsTd6/P1M4jcf/ouNwlHbczCUl1PG3q3Y4ku2ilV2y+9qNVrAURU2ZIVI4i0ipAwu61yq05MwB5kUSjOZ+M"
    "oX0PCCjRBNSLTxIFMBKFEZSZZ8A7OzejRhCaPr+lQpt3UFvye6v8uSFqfrsT2j6b8FRfhtQW0skw+InSlqnus5GUbpeNpCCGkoKdUVJVKLR9JUk1"
    "ox/R9MXsHe7GSUSz0t0L5Z6IJrCEmydZzDsGTC3VpkXq2LQSdSyMOkgQ3o8gcHcQxD/aqgMT"
)
"""Pornography, its trade, and explicit words, simplified and traditional."""

ALLOWED_CHINESE = (
    "eNpllflW8jwQxv/PVSNQ2UFFBATZy6rsWmxZboZsd/FOkpkK33cOnP6eydI0mTwjqqXrqcf9E+OPHl+nZXhB4p6PpAfP7HqqOkGtmYjx5YhirRPR"
    "IIUk2iHFYhL1nuw98NGe6KsO/XJ3MVnOMLHtuzATuQSRfdhWN8JLEcWziO8HxivzeGxVDzuwDulPGf94ijXj/u56bHAviyQnCSZfAyeYPJcd6ZbH"
    "+DiDYf71hKQXDXFaqsuX+g7ke5rnJiLlMZXqi4+p+EjKSYm5h3lJ/oKCP5Wv0ZBaDgkj1KUtjw0cA39d399NIKNHlerANw2v4Ugn3pkKVk4wngmR"
    "1KWFJA5xq7dDkvM60jWkEaLsUz/7EKUBUaNKZPfS0DVqIPFKDklGTeq3yRCV/biVYrJWRFL7CePHpEhM7HufikT+DglOAMk9zFqQYH1IsCpHZjcc"
    "8XMC6Rq+UAxWiiNaF2o1u08zQ2KhUOts3KFhSGY35kIgXVJErRMuFgQu1tD1MEdyH2XJfqhtDUOKjWY0tusjqZ8dHWxmLp4Pcj9AEgcPxm6dYLLw"
    "iaRyW0g2Gc2Zmrw4wWTuF0k0V3FshgRJigQpQ63hgCi6UL/qB8WaJyQdPVPM71C/9CFuTQPJ07PoHW12jSO4JMzkthXsGr0hyccu7B1Pg7v8HpF0"
    "7eIEU4kHJD6uwkPXl3rQgIlyMpzIXIYXwz8hlt9MDQ+6veXtKZK5hdvZjWh34z5rJJ0CF9jOZHfnNOPdEDSJ9lr1pySSn/B9Iu8z8bmVDwuZhknW"
    "KVFr4tKvvzuRvchkmahZNAQuJvM/SCoZxxqQ5uCt2zNfPTJVyomdr2efIpvlQ7hk5Uh8RfxpwitruPYJ7uWsC6/TTjBIFPipySMYsfE/kwneWtVz"
    "SLBbkHppJyhpgOBs1GrDV0eiyjMz25P8FYcZD8eQpSH3D/I0hytacsKYJng7L72JYAFiAWdsfPOjw9R+Yw4z8OEoSk6gS4lRCbK7hM7FR7/kYUFw"
    "72abiOlMGUfI17UT9o4chiKqQp7XRd2HA7yGBfCwidm14B3JViRLugcTLV6dwJio5m1Fwli7QAQVyZGYdSnW2yPJdF8Ojrr3hUS15DbmKtKLC1NF"
    "MmQfVJFgLFak21luKpIdCxWoBeu4rUhGM5tXc6xIQH8VCQRWJCBbkWZjDLuKZOi/FSmfoYrk53WrLadL5h7mJYUBiXPReKITWJH0Q08GQxwDf/1W"
    "vZtA7temIunEFiuIrrfva0mlRd7/Paa6UVxR7PeV6sF2ymRtfe/4MBZNeZExJNIttGJDzooNtQtoxSDQig3xRIHIWrFtte8w5KzYtlortq3Wig2p"
    "8ZzMtjS9N9vghcm9R0b40yMjrJeIMrnYElPGEn+2xhLR9LwXMj0gXQvurI7XKrpftO62fzdWV0r8iT+rM4cavKEx8d6GCe9MxjS/oDHB9GA4kLiy"
    "kEBCEzIxMCG0nvH/rEfMV0wsQ2M95rrBbbKCwcbAT43f4Mb9WQ+smbYLbWbe4Osykmwejc3oqCPChbOZgE/Gsc0YYW4CXFi1G1qbKadg38hmdqMb"
    "m7ECU8+YhhplMB356IwENnOXorrfsTbjRqDNTJf/AOA0GgQ="
)
"""Innocent phrases that hold one of the others across the border of two words."""


def words(text: str) -> list[str]:
    """The words of one of the constants above."""
    return zlib.decompress(base64.b64decode(text)).decode().split("\n")


def encode(listed: list[str]) -> str:
    """What `words` turns into this list."""
    return base64.b64encode(zlib.compress("\n".join(listed).encode(), 9)).decode()
